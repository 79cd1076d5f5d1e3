"""RabbitMQ refuses a queue or ends connections: a call ends in time, and a worker recovers without help."""

from __future__ import annotations

import amqp
import pytest
from amqp.exceptions import NotFound

from kvworker import KeyValueStore, OperationTimeoutError
from tests.acceptance.test_rabbitmq import broker_url, empty_queues, rabbit_node
from tests.acceptance.test_timeouts import within
from tests.support.processes import WorkerNode, wait_until
from tests.support.rabbitmq import RabbitNode, server_script

__all__ = ["broker_url", "empty_queues", "rabbit_node"]

pytestmark = [
    pytest.mark.skipif(server_script() is None, reason="no rabbitmq-server is installed on this machine"),
    pytest.mark.timeout(300),
]


def declare_otherwise(node: RabbitNode) -> None:
    with amqp.Connection(f"127.0.0.1:{node.port}") as connection:
        channel = connection.channel()
        channel.queue_delete("kv")
        channel.queue_declare("kv", durable=True, auto_delete=False, arguments={"x-max-length": 10_000})


def delete_queue(node: RabbitNode) -> None:
    with amqp.Connection(f"127.0.0.1:{node.port}") as connection:
        connection.channel().queue_delete("kv")


def has_queue(node: RabbitNode) -> bool:
    with amqp.Connection(f"127.0.0.1:{node.port}") as connection:
        try:
            connection.channel().queue_declare("kv", passive=True)
        except NotFound:
            return False
        return True


def test_a_queue_that_is_deleted_and_then_declared_with_other_arguments(
    store: KeyValueStore, worker_node: WorkerNode, rabbit_node: RabbitNode
) -> None:
    """A running worker ended with a 406."""
    assert store.increment("n", "c", timeout=60).value == 1
    delete_queue(rabbit_node)
    wait_until(lambda: has_queue(rabbit_node), what="the worker declaring the queue")
    assert store.increment("n", "c", timeout=60).value == 2
    worker_node.kill("SIGSTOP")
    declare_otherwise(rabbit_node)
    worker_node.kill("SIGCONT")
    wait_until(lambda: "the broker refuses what this worker needs" in worker_node.logs(), what="the refusal")
    delete_queue(rabbit_node)
    wait_until(lambda: has_queue(rabbit_node), what="the worker declaring the queue again")
    assert store.increment("n", "c", timeout=100).value == 3
    assert worker_node.stop() == 0


def test_a_worker_ends_with_one_line_if_its_queue_has_other_arguments(
    rabbit_node: RabbitNode, other_worker: WorkerNode
) -> None:
    declare_otherwise(rabbit_node)
    other_worker.start()
    wait_until(lambda: other_worker.exit_code is not None, what="the worker's end")
    assert other_worker.exit_code == 1
    (line,) = [line for line in other_worker.logs().splitlines() if "CRITICAL" in line]
    assert "this worker cannot serve: the broker refuses what it needs to consume" in line
    assert "PRECONDITION_FAILED" in line
    assert "Traceback" not in other_worker.logs()


def test_a_memory_alarm_that_blocks_senders(
    store: KeyValueStore, worker_node: WorkerNode, rabbit_node: RabbitNode
) -> None:
    assert store.increment("n", "c", timeout=60).value == 1
    rabbit_node.control("set_vm_memory_high_watermark", "0")
    try:
        with within(1.0), pytest.raises(OperationTimeoutError) as caught:
            store.increment("n", "c", timeout=1.0)
        pending = [store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=200) for _ in range(4)]
    finally:
        rabbit_node.control("set_vm_memory_high_watermark", "0.4")
    repeated = store.increment("n", "c", timeout=60, idempotency_key=caught.value.operation_id)
    assert {repeated.value, *(reply.result().value for reply in pending)} == {2, 3, 4, 5, 6}
    assert worker_node.status == "running"
