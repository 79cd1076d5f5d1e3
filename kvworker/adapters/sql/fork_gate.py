"""A gate that keeps connections closed while the process forks, for databases that need that.

SQLite records in the process's memory which locks on a file the process holds. A child inherits this memory but not
the locks. If it was forked while a thread wrote, it would find the file locked forever; otherwise it would read
without the locks that it believes to hold.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: The longest that a fork waits for operations in progress. After that it happens anyway.
_MAX_WAIT_SECONDS: Final = 5.0


class ForkGate:
    """Counts the connections in use, and lets no operation begin while the process forks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._in_use = 0
        self._forking = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Count the ``with`` block as in use. Waits first while the process forks."""
        with self._changed:
            while self._forking:
                self._changed.wait()
            self._in_use += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_use -= 1
                self._changed.notify_all()

    def close(self) -> bool:
        """Close the gate and wait until no connection is in use; return False if that takes over 5 s."""
        give_up_at = time.monotonic() + _MAX_WAIT_SECONDS
        with self._changed:
            self._forking = True
            while self._in_use and (remaining := give_up_at - time.monotonic()) > 0:
                self._changed.wait(remaining)
            return not self._in_use

    def open(self) -> None:
        """Open the gate again."""
        with self._changed:
            self._forking = False
            self._changed.notify_all()
