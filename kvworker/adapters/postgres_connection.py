"""A connection that reuses a cursor, and statements that go to the server in one packet."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

#: No lock is waited for longer, and a process that is frozen half way keeps none for longer.
_BEGIN: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED",
    "SELECT set_config('lock_timeout', '50ms', true), set_config('idle_in_transaction_session_timeout', '1s', true)",
)


class OneCursorConnection(psycopg.Connection[Any]):
    """A connection with a cursor for statements of one row: making one takes a fifth of psycopg's time for them.

    A result stays in it until the next one comes, so it is not for large ones.
    """

    _reused: psycopg.Cursor[Any] | None = None

    @property
    def reused_cursor(self) -> psycopg.Cursor[Any]:
        """The cursor; what it has read is gone with its next statement."""
        if self._reused is None:
            self._reused = self.cursor()
        return self._reused


def run_together(
    connection: psycopg.Connection[Any], calls: Sequence[tuple[str, Mapping[str, Any]]]
) -> list[list[Any]]:
    """Run statements as one transaction in one round trip, and give each one's rows.

    A transaction that fails is rolled back.
    """
    try:
        with connection.pipeline():
            for statement in _BEGIN:
                connection.execute(statement)
            cursors = [connection.execute(statement, params) for statement, params in calls]
            connection.execute("COMMIT")
    except BaseException:
        # Whatever ended the connection is the error, not that it cannot be rolled back.
        with contextlib.suppress(psycopg.Error):
            connection.rollback()
        raise
    return [cursor.fetchall() for cursor in cursors]
