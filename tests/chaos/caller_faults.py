"""What callers do to a store: they fork, and they are many."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import NoReturn

from tests.chaos.history import History
from tests.chaos.load import Caller
from tests.chaos.scene import Scene
from tests.support.processes import wait_until

_CALLS_OF_A_CHILD = 30


def fork_caller(scene: Scene) -> None:
    """Fork this process amid its calls; the child makes calls with the same stores."""
    number = scene.number()
    path = scene.stand.directory / f"child-{number}.history"
    with warnings.catch_warnings():
        # Python says that a fork of several threads may hang. That it does not is what is tested.
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        _call_and_exit(scene, f"child{number}", path)
    try:
        wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, timeout_seconds=30, what="the child's end")
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    child = History(path)
    calls = child.calls()
    child.close()
    scene.load.history.add(*calls)
    assert calls, "the child has made no call"


def _call_and_exit(scene: Scene, name: str, path: Path) -> NoReturn:
    history = History(path)
    store = scene.chance.choice(scene.stores)
    Caller(name, store, scene.load.worlds, history, name).run_for(_CALLS_OF_A_CHILD)
    history.close()
    # No clean-up of what belongs to the parent.
    os._exit(0)


def call_at_once(scene: Scene) -> None:
    """See that many threads are amid a call of one store at the same moment."""
    many = len(scene.load.callers) // 2
    wait_until(lambda: sum(caller.is_calling for caller in scene.load.callers) >= many, what="many calls at once")
