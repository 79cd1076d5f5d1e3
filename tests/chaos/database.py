"""Reads the database without the product: snapshots, and an observer that checks the sums continuously."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import NullPool, create_engine, func, select
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError

from kvworker.adapters.sql.schema import entries, ledgers, records
from tests.chaos.batch_operations import TWINS
from tests.chaos.entry_checks import moment_violations
from tests.chaos.evidence import Entry, Ledger, Moment, Snapshot

_SHOWN = 20


class Database:
    """The tables of a store. Each method reads one consistent snapshot."""

    def __init__(self, url: str) -> None:
        self._is_sqlite = make_url(url).get_backend_name() == "sqlite"
        options: dict[str, Any] = {} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._engine: Engine = create_engine(url, poolclass=NullPool, **options)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that sees one consistent snapshot."""
        with self._engine.connect() as connection:
            if self._is_sqlite:
                connection.exec_driver_sql("BEGIN")
            yield connection

    def snapshot(self, prefix: str) -> Snapshot:
        """Read everything in the namespaces with a prefix."""
        with self.reading() as connection:
            rows = connection.execute(select(entries).where(entries.c.namespace.startswith(prefix))).mappings()
            found = {
                (row["namespace"], row["key"]): Entry(
                    row["value"], row["size_bytes"], row["version"], expires=row["expires_at"] is not None
                )
                for row in rows
            }
            # The record of a refusal does not mean that an operation was applied.
            applied = select(records.c.namespace, records.c.id).where(records.c.request.is_not(None))
            ids = connection.execute(applied.where(records.c.namespace.startswith(prefix)))
            return Snapshot(found, _ledgers(connection, prefix), frozenset((name, id_.hex()) for name, id_ in ids))

    def moment(self, prefix: str) -> Moment:
        """Read the sums of the namespaces with a prefix."""
        with self.reading() as connection:
            sums = select(entries.c.namespace, func.sum(entries.c.size_bytes), func.count())
            grouped = sums.where(entries.c.namespace.startswith(prefix)).group_by(entries.c.namespace)
            stored = {namespace: (int(size_bytes), rows) for namespace, size_bytes, rows in connection.execute(grouped)}
            return Moment(_ledgers(connection, prefix), stored, _twins(connection, prefix))

    def expired_rows(self) -> int:
        """Count the entries that have expired and are not swept yet."""
        now = func.unixepoch("subsec") if self._is_sqlite else func.clock_timestamp()
        with self.reading() as connection:
            return connection.scalar(select(func.count()).select_from(entries).where(entries.c.expires_at < now)) or 0


def _ledgers(connection: Connection, prefix: str) -> dict[str, Ledger]:
    sums = select(
        ledgers.c.namespace,
        func.sum(ledgers.c.used_bytes),
        func.sum(ledgers.c.entry_count),
        # In the other slots, this column holds the quota under which their shares were granted.
        func.max(ledgers.c.quota_bytes).filter(ledgers.c.slot == 0),
    )
    rows = connection.execute(sums.where(ledgers.c.namespace.startswith(prefix)).group_by(ledgers.c.namespace))
    return {namespace: Ledger(int(used), int(count), quota) for namespace, used, count, quota in rows}


def _twins(connection: Connection, prefix: str) -> dict[str, tuple[int, ...]]:
    found: dict[str, dict[str, int]] = {}
    wanted = select(entries.c.namespace, entries.c.key, entries.c.value)
    for namespace, key, text in connection.execute(
        wanted.where(entries.c.namespace.startswith(prefix), entries.c.key.in_(TWINS))
    ):
        found.setdefault(namespace, dict.fromkeys(TWINS, 0))[key] = int(text)
    return {namespace: tuple(values.values()) for namespace, values in found.items()}


class Observer:
    """A thread that checks ledgers, quotas and twins every ``interval_seconds``, as far as the database answers."""

    def __init__(self, database: Database, prefix: str, interval_seconds: float = 0.1) -> None:
        self._database = database
        self._prefix = prefix
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._found: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
        #: The number of snapshots that it could take.
        self.observations = 0

    def start(self) -> None:
        """Start to observe."""
        self._thread.start()

    def stop(self) -> list[str]:
        """Stop the observer.

        Returns:
            The violations, and a problem if the observer could never read the database.
        """
        self._stopping.set()
        self._thread.join(timeout=30)
        problems = [f"seen {times} times: {problem}" for problem, times in self._found.most_common(_SHOWN)]
        return problems if self.observations else [*problems, "the observer could never read the database"]

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_seconds):
            try:
                moment = self._database.moment(self._prefix)
            except DBAPIError:
                continue
            self.observations += 1
            self._found.update(moment_violations(moment))
