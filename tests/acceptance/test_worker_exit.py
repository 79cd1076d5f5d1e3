"""A worker that stops while an operation is on its way to a pool child: it ends soon, and nothing is lost."""

from __future__ import annotations

import psutil
import pytest

from kvworker import KeyValueStore
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

#: Less than the 30 s that a child waits if the worker never reads its result.
SOON_SECONDS = 15.0


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=prefork", "--concurrency=1", "--loglevel=DEBUG"]


def test_a_child_starts_an_operation_after_its_worker_was_stopped(
    store: KeyValueStore, worker_node: WorkerNode, other_worker: WorkerNode, valkey_node: ValkeyNode
) -> None:
    store.set("n", "c", 10, timeout=20)
    # The caller has the result, and the child has logged it, before the main process knows that its child is free.
    with valkey_node.client() as broker:
        wait_until(lambda: broker.hlen("kvworker.unacked") == 0, what="the end of the first operation")
    main, (child,) = psutil.Process(worker_node.pid), worker_node.children()
    child.suspend()
    pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=60)
    wait_until(lambda: "Task kvworker.kv_increment[" in worker_node.logs(), what="the message reaching the worker")
    threads = main.num_threads()
    worker_node.kill("SIGTERM")
    wait_until(lambda: main.num_threads() > threads, what="the worker waiting for its children")
    child.resume()
    wait_until(lambda: worker_node.exit_code == 0, timeout_seconds=SOON_SECONDS, what="the worker's end")
    other_worker.start()
    assert pending.result().value == 11
    assert store.get("n", "c", timeout=60).value == 11  # the other worker may still be starting
