"""Names the sessions that keep the store waiting: they hold locks on its tables or rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, TypeAlias

from kvworker.adapters import KeyValueStoreAdapter
from kvworker.model import BlockingSession, DatabaseConnections, TableLock
from kvworker.ops.overview.units import duration_text
from kvworker.wording import counted

#: Migrations and the store's own statements hold locks for a shorter time.
_SHORT_SECONDS: Final = 1.0
#: A line names no more processes that a lock waits for.
_MOST_NAMED: Final = 5
LockHolder: TypeAlias = TableLock | BlockingSession


def lasting_locks(adapter: KeyValueStoreAdapter) -> list[LockHolder]:
    """Return the locks on tables that are still there a second later, and the sessions that lock rows.

    Raises:
        KVStoreError: The database cannot be asked.
    """
    connections = adapter.database_connections()
    if connections is None:
        return []
    return [*_still_there(connections.locks, adapter), *connections.blockers]


def lock_lines(connections: DatabaseConnections) -> list[str]:
    """Describe the locks that keep operations waiting, each in a line."""
    return [*map(lock_text, connections.locks), *map(lock_text, connections.blockers)]


def lock_text(holder: LockHolder) -> str:
    """Describe a lock: the process that holds it or waits for it, and for how long."""
    if isinstance(holder, TableLock):
        what, does = f"{holder.table} is locked", f"holds {holder.mode}"
        if holder.waits_for:
            does = f"waits for {holder.mode} behind {_processes(holder.waits_for)}, and others behind it"
    else:
        waiting = f"{counted(holder.waiting_count, 'session')} waiting for {duration_text(holder.waiting_seconds)}"
        what, does = "rows are locked", f"keeps {waiting}"
    names = [f"{kind} {name}" for kind, name in (("user", holder.user), ("program", holder.program)) if name]
    owner = f"{_process(holder.pid)} ({', '.join(names)})" if names else _process(holder.pid)
    since = "" if holder.open_seconds is None else f"; its transaction began {duration_text(holder.open_seconds)} ago"
    return f"{what}: {owner} {does}{since}"


def _still_there(before: Sequence[TableLock], adapter: KeyValueStoreAdapter) -> list[TableLock]:
    if not before:
        return []
    time.sleep(_SHORT_SECONDS)
    connections = adapter.database_connections()
    known = {(lock.table, lock.mode, lock.pid) for lock in before}
    after = () if connections is None else connections.locks
    return [lock for lock in after if (lock.table, lock.mode, lock.pid) in known]


def _processes(pids: tuple[int, ...]) -> str:
    """Name processes. A parallel query has several, which PostgreSQL names by the same number."""
    different = [*dict.fromkeys(pids)]
    names = ", ".join(map(_process, different[:_MOST_NAMED]))
    more = len(different) - _MOST_NAMED
    return f"{names} and {more} more" if more > 0 else names


def _process(pid: int) -> str:
    return f"process {pid}" if pid else "a prepared transaction"
