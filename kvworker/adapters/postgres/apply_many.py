"""Sends the statements of unrelated operations to PostgreSQL in one packet."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import psycopg

from kvworker.adapters.sql.operation_records import entry_result
from kvworker.adapters.sql.write import Write
from kvworker.model import GetResult

#: A statement and its parameters.
Call: TypeAlias = tuple[str, Mapping[str, Any]]

#: The most bytes of values that are read together. Larger values are read individually.
_MAX_READ_BYTES: Final = 262_144


def run_calls(
    connection: psycopg.Connection[Any], begin: Sequence[str], calls: Sequence[Call], *, is_transaction: bool
) -> list[list[Any]]:
    """Run statements and return their rows, as one transaction that ``begin`` begins, or each as its own."""
    if is_transaction:
        return _run_transaction(connection, begin, calls)
    return [connection.execute(*call, binary=True).fetchall() for call in calls]


def _run_transaction(
    connection: psycopg.Connection[Any], begin: Sequence[str], calls: Sequence[Call]
) -> list[list[Any]]:
    """Run statements as one transaction, which ``begin`` begins, in one round trip, and return their rows.

    An error rolls the transaction back.
    """
    try:
        cursors = _run_pipelined(connection, begin, calls)
    except BaseException:
        # If the connection broke, that is the error to raise, not the failure to roll back.
        with contextlib.suppress(psycopg.Error):
            connection.rollback()
        raise
    return [cursor.fetchall() for cursor in cursors]


def _run_pipelined(
    connection: psycopg.Connection[Any], begin: Sequence[str], calls: Sequence[Call]
) -> list[psycopg.Cursor[Any]]:
    failure: psycopg.Error | None = None
    cursors = []
    try:
        with connection.pipeline():
            # psycopg would log a warning about every error that leaves this block.
            try:
                for statement in begin:
                    connection.execute(statement)
                cursors = [connection.execute(*call, binary=True) for call in calls]
                connection.execute("COMMIT")
            except psycopg.Error as error:
                failure = error
    except psycopg.Error as error:
        failure = failure or error
    if failure:
        raise failure
    return cursors


def read_params(reads: Sequence[Write]) -> Mapping[str, Any]:
    """Return the parameters of the statement that reads several entries."""
    names = [(read.namespace, read.steps[0].key) for read in reads]
    return {"namespaces": [name for name, _ in names], "keys": [key for _, key in names], "max_bytes": _MAX_READ_BYTES}


def read_results(reads: Sequence[Write], rows: Sequence[Any]) -> list[GetResult | None]:
    """Make the results of the statement that reads several entries; None where the values were too large."""
    found = {place - 1: row for place, *row in rows}
    return [
        None if i in found and found[i][0] is None else entry_result(read.namespace, read.steps[0].key, found.get(i))
        for i, read in enumerate(reads)
    ]
