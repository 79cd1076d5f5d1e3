"""Faults that callers cause: they fork, and many of them call at once."""

from __future__ import annotations

import os
import signal
import warnings
from pathlib import Path
from typing import NoReturn

from tests.chaos.history import History
from tests.chaos.load import Caller
from tests.chaos.scenario import FaultContext
from tests.support.processes import wait_until

_CALLS_OF_A_CHILD = 30


def fork_caller(context: FaultContext) -> None:
    """Fork this process during its calls. The child makes calls with the same stores."""
    number = context.next_number()
    path = context.cluster.directory / f"child-{number}.history"
    with warnings.catch_warnings():
        # Python warns that a fork with several threads may hang. This scenario tests that the store does not.
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        _call_and_exit(context, f"child{number}", path)
    try:
        wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, timeout_seconds=30, what="the child's end")
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    child = History(path)
    calls = child.calls()
    child.close()
    context.load.history.add(*calls)
    assert calls, "the child has made no call"


def _call_and_exit(context: FaultContext, name: str, path: Path) -> NoReturn:
    history = History(path)
    store = context.rng.choice(context.stores)
    Caller(name, store, context.load.groups, history, name).run_for(_CALLS_OF_A_CHILD)
    history.close()
    # Skip all clean-up, because the resources belong to the parent.
    os._exit(0)


def call_at_once(context: FaultContext) -> None:
    """Wait until many threads call one store at the same moment."""
    many = len(context.load.callers) // 2
    wait_until(lambda: sum(caller.is_calling for caller in context.load.callers) >= many, what="many calls at once")
