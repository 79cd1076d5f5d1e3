"""Objects that hear of forks, and values that each process makes for itself."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable

import pytest

from kvworker.fork_safety import ForkAware, ProcessLocal, watch_forks


def in_a_child(check: Callable[[], bool]) -> bool:
    """Whether a check holds in a forked child."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if check() else 1)
    return os.waitpid(pid, 0)[1] == 0


class Recorder(ForkAware):
    def __init__(self) -> None:
        self.heard: list[str] = []
        watch_forks(self)

    def before_fork(self) -> None:
        self.heard.append("before")

    def after_fork_in_parent(self) -> None:
        self.heard.append("parent")

    def after_fork_in_child(self) -> None:
        self.heard.append("child")


def test_an_observer_hears_of_forks_in_both_processes() -> None:
    recorder = Recorder()
    assert in_a_child(lambda: recorder.heard == ["before", "child"])
    assert recorder.heard == ["before", "parent"]


def test_an_observer_is_not_kept_alive() -> None:
    heard = Recorder().heard
    gc.collect()
    assert in_a_child(lambda: True)
    assert heard == []


def test_each_process_makes_its_own_value() -> None:
    local = ProcessLocal(object)
    mine = local.get()
    assert local.get() is mine
    assert in_a_child(lambda: local.get() is not mine and local.pop() is not None)
    assert local.get() is mine


def test_a_value_that_was_removed_is_made_again() -> None:
    local = ProcessLocal(object)
    assert local.pop() is None
    mine = local.get()
    assert local.pop() is mine
    assert local.get() is not mine


@pytest.mark.timeout(30)
def test_no_fork_happens_while_a_value_is_being_made() -> None:
    making, may_end = threading.Event(), threading.Event()
    lock = threading.Lock()

    def make() -> object:
        with lock:
            making.set()
            may_end.wait(10)
        return object()

    local = ProcessLocal(make)
    maker = threading.Thread(target=local.get)
    maker.start()
    assert making.wait(10)
    threading.Timer(0.2, may_end.set).start()
    # The child could never acquire the lock if it had been held while the process forked.
    assert in_a_child(lambda: lock.acquire(timeout=0))
    maker.join()
