"""A psycopg connection that reuses a cursor, and that no silent server can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.errors import _WaitTimeout

_Value = TypeVar("_Value")


class OverdueError(psycopg.OperationalError):
    """The server did not answer in time. The connection is closed, since its state is unknown."""


class OneCursorConnection(psycopg.Connection[Any]):
    """A connection with one cursor for statements that return one row. Making a cursor takes a fifth of their time.

    The cursor keeps a result until the next one arrives, so it is not meant for large results.
    """

    #: The longest wait for the server's answer to one statement; None for no bound. The server cannot keep this time
    #: itself: it may be frozen, or the network may have lost the connection without a word to either side.
    limit_seconds: float | None = None
    #: Called when the server did not answer in time.
    on_overdue: Callable[[], None] | None = None
    _reused: psycopg.Cursor[Any] | None = None

    @property
    def reused_cursor(self) -> psycopg.Cursor[Any]:
        """The cursor. Its next statement discards the last result."""
        if self._reused is None:
            self._reused = self.cursor(binary=True)
        return self._reused

    def wait(self, gen: PQGen[_Value], interval: float = 0.1, timeout: float | None = None) -> _Value:
        """Wait for the server as psycopg does, but at most ``limit_seconds``.

        Raises:
            OverdueError: The server did not answer in time.
        """
        try:
            return super().wait(gen, interval, self.limit_seconds if timeout is None else timeout)
        except _WaitTimeout:
            if self.on_overdue is not None:
                self.on_overdue()
            raise _drop(self) from None


@contextmanager
def bounded(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Bound each wait of a host program's connection in a ``with`` block, as those of our own connections are."""
    wait = connection.wait

    def wait_in_time(gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait for the server, at most for the bound."""
        try:
            return wait(gen, interval, seconds if timeout is None else timeout)
        except _WaitTimeout:
            raise _drop(connection) from None

    # psycopg's cursors, pipelines and transactions all wait through this method of their connection.
    vars(connection)["wait"] = wait_in_time
    try:
        yield
    finally:
        del vars(connection)["wait"]


def _drop(connection: psycopg.Connection[Any]) -> OverdueError:
    connection.close()
    return OverdueError("the server did not answer in time")
