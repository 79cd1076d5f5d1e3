"""Waits for the end of the threads that a test has started."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.processes import wait_until


@contextmanager
def threads_ended(name: str = "kvworker-") -> Iterator[None]:
    """Wait for the end of the threads that start within the context and whose name begins like this.

    Other tests of the process may have left such threads behind: those are not waited for.
    """
    of_others = set(threading.enumerate())

    def running() -> list[str]:
        mine = set(threading.enumerate()) - of_others
        return [thread.name for thread in mine if thread.name.startswith(name)]

    yield
    wait_until(lambda: not running(), what=f"the end of the threads {running()}")
