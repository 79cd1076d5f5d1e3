"""Names the sessions that hold locks on the store's tables."""

from __future__ import annotations

import time
from typing import Final

from kvworker.adapters import KeyValueStoreAdapter
from kvworker.model import TableLock
from kvworker.ops.overview.units import duration_text

#: Migrations and the store's own statements hold locks for a shorter time.
_SHORT_SECONDS: Final = 1.0
#: A line names no more processes that a lock waits for.
_MOST_NAMED: Final = 5


def lasting_locks(adapter: KeyValueStoreAdapter) -> list[TableLock]:
    """Return the locks on tables that are still there a second later.

    Raises:
        KVStoreError: The database cannot be asked.
    """
    before = _locks(adapter)
    if not before:
        return []
    time.sleep(_SHORT_SECONDS)
    known = {(lock.table, lock.mode, lock.pid) for lock in before}
    return [lock for lock in _locks(adapter) if (lock.table, lock.mode, lock.pid) in known]


def lock_text(lock: TableLock) -> str:
    """Describe a lock: the table, the process that holds the lock or waits for it, and for how long."""
    names = [f"{kind} {name}" for kind, name in (("user", lock.user), ("program", lock.program)) if name]
    owner = f"{_process(lock.pid)} ({', '.join(names)})" if names else _process(lock.pid)
    what = f"holds {lock.mode}"
    if lock.waits_for:
        what = f"waits for {lock.mode} behind {_processes(lock.waits_for)}, and others behind it"
    since = "" if lock.open_seconds is None else f"; its transaction began {duration_text(lock.open_seconds)} ago"
    return f"{lock.table} is locked: {owner} {what}{since}"


def _locks(adapter: KeyValueStoreAdapter) -> tuple[TableLock, ...]:
    connections = adapter.database_connections()
    return () if connections is None else connections.locks


def _processes(pids: tuple[int, ...]) -> str:
    """Name processes. A parallel query has several, which PostgreSQL names by the same number."""
    different = [*dict.fromkeys(pids)]
    names = ", ".join(map(_process, different[:_MOST_NAMED]))
    more = len(different) - _MOST_NAMED
    return f"{names} and {more} more" if more > 0 else names


def _process(pid: int) -> str:
    return f"process {pid}" if pid else "a prepared transaction"
