"""A worker that stops or restarts: it ends soon, and nothing is lost."""

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


def test_a_worker_without_a_terminal_restarts_on_a_hangup(store: KeyValueStore, worker_node: WorkerNode) -> None:
    worker_node.can_fork = False  # it restarts with its command line, so it must have its own
    worker_node.restart()
    store.set("n", "k", 1, timeout=60)
    pid, (child,) = worker_node.pid, worker_node.children()
    worker_node.kill("SIGHUP")
    wait_until(lambda: not child.is_running(), what="the end of the old pool")
    assert store.get("n", "k", timeout=60).value == 1
    assert worker_node.pid == pid
    assert worker_node.status == "running"
    assert worker_node.stop(timeout_seconds=120) == 0
