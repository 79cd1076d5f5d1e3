"""Sends the statements of unrelated operations to PostgreSQL in one packet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from kvworker.adapters.postgres.pipelining import Call, rolling_back, run_pipelined
from kvworker.adapters.sql.operation_records import entry_result
from kvworker.adapters.sql.write import Write
from kvworker.model import GetResult

#: The most bytes of values that are read together. Larger values are read individually.
_MAX_READ_BYTES: Final = 262_144


def run_calls(
    connection: psycopg.Connection[Any], begin: Sequence[str], calls: Sequence[Call], *, is_transaction: bool
) -> list[list[Any]]:
    """Run statements and return their rows, as one transaction that ``begin`` begins, or each as its own."""
    if not is_transaction:
        return [connection.execute(*call, binary=True).fetchall() for call in calls]
    with rolling_back(connection):
        cursors = run_pipelined(connection, [*((statement, {}) for statement in begin), *calls, ("COMMIT", {})])
    return [cursor.fetchall() for cursor in cursors[len(begin) : -1]]


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
