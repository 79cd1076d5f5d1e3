"""Reads what an operator sees of a PostgreSQL server: its connections, and the locks on the store's tables."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from kvworker.adapters.sql.dialect import Dialect, DriverConnection
from kvworker.adapters.sql.schema import VERSION_TABLE, metadata
from kvworker.model import DatabaseConnections, TableLock

#: An operator needs no longer list of a table's locks.
_MOST_LOCKS: Final = 5


def read_connections(dialect: Dialect, connection: DriverConnection) -> DatabaseConnections:
    """Count the connections, and read the locks that may keep operations waiting. It waits for no lock itself."""
    counts = dialect.fetch_one(connection, "count_connections", {})
    params = {"tables": json.dumps([*sorted(metadata.tables), VERSION_TABLE]), "limit": _MOST_LOCKS}
    rows = dialect.run(connection, "table_locks", params).fetchall()
    locks = tuple(
        TableLock(table, mode, pid, user, program, open_seconds, tuple(waits_for))
        for table, mode, pid, user, program, open_seconds, waits_for in rows
    )
    return replace(DatabaseConnections(*counts), locks=locks)
