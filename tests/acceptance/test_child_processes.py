"""A store in another process: inherited by a fork at an unlucky moment, or pickled for a new interpreter."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

import pytest

from kvworker import KeyValueStore, Settings
from tests.support.processes import WorkerNode, wait_until


def _increment(store: KeyValueStore, values: Any) -> None:
    values.put(store.increment("n", "c").value)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_pickled_store_works_in_a_new_process(store: KeyValueStore, worker_node: WorkerNode, method: str) -> None:
    store.increment("n", "c")
    context: Any = multiprocessing.get_context(method)
    values = context.Queue()
    child = context.Process(target=_increment, args=(store, values))
    child.start()
    assert values.get(timeout=60) == 2
    child.join(timeout=30)
    assert child.exitcode == 0
    assert store.increment("n", "c").value == 3


# Python warns about threads combined with fork, but the store promises to survive exactly that.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_while_another_thread_makes_its_first_call(settings: Settings, worker_node: WorkerNode) -> None:
    exit_codes = []
    for _ in range(5):
        store = KeyValueStore(settings)
        thread = threading.Thread(target=store.get, args=("n", "k"))
        thread.start()
        child = os.fork()
        if not child:
            signal.alarm(10)
            os._exit(store.get("n", "k", timeout=8).found)
        exit_codes.append(_wait_for_exit_code(child))
        thread.join()
        store.close()
    assert exit_codes == [0] * 5


def _wait_for_exit_code(child: int) -> int:
    found: list[tuple[int, int]] = []
    wait_until(lambda: found.append(os.waitpid(child, os.WNOHANG)) or found[-1][0], what="the child's end")  # type: ignore[func-returns-value]
    return os.waitstatus_to_exitcode(found[-1][1])
