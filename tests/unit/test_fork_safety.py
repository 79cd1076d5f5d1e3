"""Objects that hear of forks, and values that each process makes for itself."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvworker.fork_safety import ForkAware, ProcessLocal, watch_forks


def in_a_child(check: Callable[[], bool]) -> bool:
    """Tell whether a check holds in a forked child."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if check() else 1)
    return os.waitpid(pid, 0)[1] == 0


@pytest.fixture
def frequent_thread_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


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


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("frequent_thread_switches")
def test_observers_may_come_and_go_while_a_process_forks() -> None:
    recorders = [Recorder() for _ in range(1000)]
    has_ended = threading.Event()

    def come_and_go() -> None:
        while not has_ended.is_set():
            Recorder()

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            assert in_a_child(lambda: all(recorder.heard[-2:] == ["before", "child"] for recorder in recorders))
            assert all(recorder.heard[-2:] == ["before", "parent"] for recorder in recorders)
    finally:
        has_ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.timeout(60)
@pytest.mark.usefixtures("frequent_thread_switches")
def test_several_threads_may_fork_at_once() -> None:
    recorders = [Recorder() for _ in range(20)]
    local = ProcessLocal(object)
    mine = local.get()

    def fork(_: int) -> bool:
        return in_a_child(lambda: local.get() is not mine and all(r.heard[-1] == "child" for r in recorders))

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(fork, range(60)))
        # No fork left the lock of the value behind.
        assert threads.submit(local.pop).result(10) is mine
    for recorder in recorders:
        assert sorted(recorder.heard) == ["before"] * 60 + ["parent"] * 60


def test_an_object_made_while_another_one_prepares_is_started_over_in_the_child() -> None:
    late: list[ProcessLocal[object]] = []

    class Slow(ForkAware):
        def before_fork(self) -> None:
            if not late:
                late.append(ProcessLocal(object))
                late[0].get()

    slow = Slow()
    watch_forks(slow)
    assert in_a_child(lambda: late[0]._value is None)
    assert late[0]._value is not None
    assert in_a_child(lambda: late[0].get() is not None)


@pytest.mark.timeout(60)
def test_an_interrupt_before_a_fork_leaves_no_lock_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    local = ProcessLocal(object)
    mine = local.get()
    recorder = Recorder()

    class Interrupted(ForkAware):
        def before_fork(self) -> None:
            raise KeyboardInterrupt

    interrupted = Interrupted()
    watch_forks(interrupted)
    assert in_a_child(lambda: local.get() is not mine and recorder.heard[-1] == "child")
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(local.pop).result(10) is mine
    assert recorder.heard == ["before", "parent"]


@pytest.mark.timeout(60)
def test_an_observer_that_fails_does_not_keep_others_from_following(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(ForkAware):
        def after_fork_in_parent(self) -> None:
            raise RuntimeError

    failing, recorder = Failing(), Recorder()
    watch_forks(failing)
    assert in_a_child(lambda: True)
    assert recorder.heard == ["before", "parent"]
    assert "could not follow a fork" in caplog.text
