"""Reads what an operator sees of a PostgreSQL server: its connections, and the locks on the store's tables and rows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from kvworker.adapters.sql.dialect import Dialect, DriverConnection
from kvworker.adapters.sql.schema import VERSION_TABLE, metadata
from kvworker.model import BlockingSession, DatabaseConnections, TableLock

#: An operator needs no longer list of a table's locks.
_MOST_LOCKS: Final = 5
#: The store's own statements wait for each other for a shorter time, ...
_SHORT_SECONDS: Final = 1.0
#: ... and PostgreSQL tells for one session at a time what it waits for, during which no other takes a lock.
_MOST_WAITS: Final = 100


def read_connections(dialect: Dialect, connection: DriverConnection) -> DatabaseConnections:
    """Count the connections, and read the locks that may keep operations waiting. It waits for no lock itself."""
    counts = dialect.fetch_one(connection, "count_connections", {})
    params = {"tables": json.dumps([*sorted(metadata.tables), VERSION_TABLE]), "limit": _MOST_LOCKS}
    rows = dialect.run(connection, "table_locks", params).fetchall()
    waits = {"seconds": _SHORT_SECONDS, "most_waits": _MOST_WAITS}
    blockers = dialect.run(connection, "blocking_sessions", {**params, **waits}).fetchall()
    locks = tuple(
        TableLock(table, mode, pid, user, program, open_seconds, tuple(waits_for))
        for table, mode, pid, user, program, open_seconds, waits_for in rows
    )
    return replace(
        DatabaseConnections(*counts), locks=locks, blockers=tuple(BlockingSession(*each) for each in blockers)
    )
