"""Statements of unrelated operations that go to PostgreSQL in one packet."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import psycopg

from kvworker.adapters.sql.dialect import Write
from kvworker.adapters.sql.operation_records import entry_result
from kvworker.model import GetResult

#: A statement and its parameters.
Call: TypeAlias = tuple[str, Mapping[str, Any]]

#: What values are read together at most; larger ones are read one by one.
_MAX_BYTES: Final = 262_144
#: No lock is waited for longer, and a process that is frozen half way keeps none for longer.
_BEGIN: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED",
    "SELECT set_config('lock_timeout', '50ms', true), set_config('idle_in_transaction_session_timeout', '1s', true)",
)


def run_together(
    connection: psycopg.Connection[Any], calls: Sequence[Call], *, is_transaction: bool
) -> list[list[Any]]:
    """Run statements in one round trip, as one transaction or each by itself, and give each one's rows.

    A transaction that fails is rolled back.
    """
    if not is_transaction:
        return [connection.execute(*call).fetchall() for call in calls]
    try:
        cursors = _run(connection, calls)
    except BaseException:
        # Whatever ended the connection is the error, not that it cannot be rolled back.
        with contextlib.suppress(psycopg.Error):
            connection.rollback()
        raise
    return [cursor.fetchall() for cursor in cursors]


def _run(connection: psycopg.Connection[Any], calls: Sequence[Call]) -> list[psycopg.Cursor[Any]]:
    failure: psycopg.Error | None = None
    cursors = []
    try:
        with connection.pipeline():
            # psycopg would log a warning of each error that leaves this block.
            try:
                for statement in _BEGIN:
                    connection.execute(statement)
                cursors = [connection.execute(*call) for call in calls]
                connection.execute("COMMIT")
            except psycopg.Error as error:
                failure = error
    except psycopg.Error as error:
        failure = failure or error
    if failure:
        raise failure
    return cursors


def read_params(reads: Sequence[Write]) -> Mapping[str, Any]:
    """Give the parameters of the statement that reads several entries."""
    names = [(read.namespace, read.steps[0].key) for read in reads]
    return {"namespaces": [name for name, _ in names], "keys": [key for _, key in names], "max_bytes": _MAX_BYTES}


def read_results(reads: Sequence[Write], rows: Sequence[Any]) -> list[GetResult | None]:
    """Give what it read; None where the values were too large."""
    found = {place - 1: row for place, *row in rows}
    return [
        None if i in found and found[i][0] is None else entry_result(read.namespace, read.steps[0].key, found.get(i))
        for i, read in enumerate(reads)
    ]
