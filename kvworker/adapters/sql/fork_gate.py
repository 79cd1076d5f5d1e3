"""A gate that keeps connections closed while the process forks, for databases that need that.

SQLite notes in the process's memory which locks on a file the process holds. A child inherits the note and not
the locks: one that was forked while a thread wrote would find the file locked for ever, and every other one
would read without the locks that it believes it has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: A fork goes on without waiting longer for operations that are under way.
_MAX_WAIT_SECONDS = 5.0


class ForkGate:
    """Counts the connections that are lent, and lends none while the process forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lent = 0
        self._forking = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Be counted; wait first while the process forks."""
        with self._changed:
            while self._forking:
                self._changed.wait()
            self._lent += 1
        try:
            yield
        finally:
            with self._changed:
                self._lent -= 1
                self._changed.notify_all()

    def close(self) -> bool:
        """Let nobody pass, and wait for those that did; False if some stayed for too long."""
        give_up_at = time.monotonic() + _MAX_WAIT_SECONDS
        with self._changed:
            self._forking = True
            while self._lent and (remaining := give_up_at - time.monotonic()) > 0:
                self._changed.wait(remaining)
            return not self._lent

    def open(self) -> None:
        """Let everybody pass again."""
        with self._changed:
            self._forking = False
            self._changed.notify_all()
