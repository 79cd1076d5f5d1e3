"""SQLite through Python's own driver: one writer at a time, for one machine. It needs the JSON functions."""

# ruff: noqa: D102 - the base classes document the methods.

from __future__ import annotations

import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Final

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from kvworker.adapters.sql.dialect import DriverConnection
from kvworker.adapters.sql.operation_records import entry_result
from kvworker.adapters.sql.planned_writes import Locked, PlanningDialect
from kvworker.adapters.sql.planning import Entry, Plan, Planner, StepRefusedError
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.adapters.sql.signals import AlreadyRecordedError, NamespaceMissingError
from kvworker.adapters.sql.statements import StatementName
from kvworker.adapters.sql.write import Limits, Record, Write
from kvworker.adapters.sqlite.engine import is_in_memory, make_sqlite_engine
from kvworker.adapters.sqlite.errors import cannot_connect, translate
from kvworker.adapters.sqlite.files import file_of, files_open_to_others
from kvworker.errors import ConfigurationError
from kvworker.model import GetResult
from kvworker.settings.adapters import SqliteSettings

_GROWN_RECORD: Final[Mapping[str, int]] = {"grown_bytes": 0, "grown_entries": 0, "grown_records": 1}


class SqliteDialect(PlanningDialect):
    """SQLite through Python's own driver."""

    name: ClassVar[str] = "sqlite"
    package: ClassVar[str] = __package__
    driver: ClassVar[str] = "pysqlite"
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error,)

    def __init__(self, settings: SqliteSettings, url: URL | None) -> None:
        super().__init__()
        self._settings = settings
        self._url = url

    def make_engine(self) -> Engine:
        assert self._url is not None  # noqa: S101 - without a url the host's engine is used
        return make_sqlite_engine(self._url, self._settings)

    def needs_fork_gate(self) -> bool:
        """Return whether the database is a file, whose locks a child would wrongly believe to hold."""
        # A database in memory would be lost with its connection.
        return self._url is not None and not is_in_memory(self._url)

    def files_open_to_others(self) -> list[Path]:
        if self._url is None or is_in_memory(self._url):
            return []
        return files_open_to_others(file_of(self._url))

    def check_usable(self, connection: sqlite3.Connection) -> None:
        """Begin a write, and undo it. A database that another process is writing to is usable too."""
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
        else:
            connection.execute("ROLLBACK")

    def is_idle(self, connection: sqlite3.Connection) -> bool:
        return not connection.in_transaction

    def check_encoding(self, connection: sqlite3.Connection) -> None:
        """Refuse text in UTF-16. Its order is not the one of the names' UTF-8, by which listings find a prefix."""
        (encoding,) = connection.execute("PRAGMA encoding").fetchone()
        if encoding != "UTF-8":
            raise ConfigurationError(
                f"the SQLite file's text is {encoding}, in which names have another order than in UTF-8; give the store"
                " a file of its own, or make the file with PRAGMA encoding = 'UTF-8'"
            )

    def translate(self, error: Exception) -> Exception:
        return translate(error)

    def cannot_connect(self, error: Exception) -> Exception:
        """Name the file that cannot be opened."""
        return cannot_connect(error, self._url.database if self._url else None)

    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Run a ``with`` block as one transaction, which has the write lock from its beginning."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def fetch_one(self, connection: DriverConnection, statement: StatementName, params: Mapping[str, Any]) -> Any:
        """Read every row, since a transaction cannot commit before its statements have ended."""
        # A transaction can only commit when every statement has been run to its end.
        rows = self.run(connection, statement, params).fetchall()
        return rows[0] if rows else None

    def write(self, connection: Any, write: Write, limits: Limits) -> Record:
        if write.action == "clear":
            return self.clear(connection, write, limits)
        if write.action == "set_quota":
            return self.set_quota(connection, write, limits)
        return self.write_planned(connection, write, limits)

    def apply_many(self, connection: Any, writes: Sequence[Write], limits: Limits) -> list[Record | GetResult | None]:
        """Apply writes and reads in one transaction, which flushes to disk once."""
        outcomes: list[Record | GetResult | None] = [None] * len(writes)
        with self.transaction(connection):
            for i, write in enumerate(writes):
                # Both are raised before anything changes, so the transaction can continue.
                with suppress(AlreadyRecordedError, StepRefusedError):
                    outcomes[i] = self._apply(connection, write, limits)
        return outcomes

    def _apply(self, connection: Any, write: Write, limits: Limits) -> Record | GetResult:
        if write.action != "get":
            return self._plan_and_store(connection, write, limits)
        name = {"namespace": write.namespace, "key": write.steps[0].key}
        return entry_result(**name, row=self.fetch_one(connection, "get_entry", name))

    def apply_planned(self, connection: Any, write: Write, limits: Limits) -> Record:
        with self.transaction(connection):
            return self._plan_and_store(connection, write, limits)

    def _plan_and_store(self, connection: Any, write: Write, limits: Limits) -> Record:
        plan, params, record = self.plan(connection, write, limits, self._lock_entries(connection, write))
        with self.charging(plan):
            self.store_plan(connection, params, plan)
        return record

    def _lock_entries(self, connection: DriverConnection, write: Write) -> Locked:
        """Read every entry of the write. The transaction already excludes other writers."""
        entries = {key: Entry() for key in write.keys}
        for key in entries:
            row = self.fetch_one(connection, "read_entry", {"namespace": write.namespace, "key": key})
            if row is not None:
                entries[key] = Entry(*row[1:])
        # SQLite's clock counts milliseconds, and an entry could be deleted and created again within one.
        planner = Planner(write.namespace, self._now(connection), version=time.time_ns() // 1000)
        return Locked(entries, planner, self.find_record(connection, write.namespace, write.operation_id))

    def store_plan(self, connection: DriverConnection, params: Mapping[str, Any], plan: Plan) -> None:
        """Store entries, record and ledgers one by one: a statement costs no round trip here."""
        for key, entry in plan.changed.items():
            self.run(connection, "store_entry", {"namespace": params["namespace"], "key": key, **asdict(entry)})
        for key in plan.removed:
            self.run(connection, "delete_entry", {"namespace": params["namespace"], "key": key})
        self.run(connection, "record_operation", params)
        if self.fetch_one(connection, "charge_ledger", params) is None:
            raise NamespaceMissingError
        if params["grown_bytes"] or params["grown_entries"]:
            self.run(connection, "charge_global_ledger", params)

    def record_refusal(self, connection: Any, params: Mapping[str, Any]) -> bool:
        with self.transaction(connection):
            row = self.fetch_one(connection, "record_refusal", params)
            if row is not None and row[0] == params["result"]:
                self.run(connection, "charge_ledger", {**params, **_GROWN_RECORD})
        return row is not None

    def withdraw_refusals(self, connection: Any, params: Mapping[str, Any]) -> str:
        with self.transaction(connection):
            rows = self.run(connection, "withdraw_previous_refusals", params).fetchall()
            rows += self.run(connection, "withdraw_refusals", params).fetchall()
            credit = {"freed_bytes": 0, "freed_rows": 0, "freed_records": len(rows)}
            self.run(connection, "credit_ledger", {**params, **credit})
        return "".join(row[0] for row in rows)

    def found_namespace(self, connection: Any, params: Mapping[str, Any]) -> None:
        with self.transaction(connection):
            if self.fetch_one(connection, "create_ledger", params) is not None:
                self.run(connection, "found_namespace", params)

    def remove_empty_ledgers(self, connection: Any) -> None:
        with self.transaction(connection):
            self.run(connection, "remove_empty_ledgers", {})
            self.run(connection, "correct_namespaces", {})

    def delete_entries(
        self,
        connection: DriverConnection,
        namespace: str,
        *,
        may_wait: bool,  # noqa: ARG002 - the transaction excludes other writers
    ) -> tuple[int, int, int, int]:
        now = self._now(connection)
        rows = self.run(connection, "delete_entries", {"namespace": namespace}).fetchall()
        live = sum(expires_at is None or expires_at > now for _, expires_at, _ in rows)
        return len(rows), live, sum(size_bytes for size_bytes, _, _ in rows), sum(reserve for _, _, reserve in rows)

    def read_entries(self, connection: DriverConnection, namespace: str, keys: list[str]) -> tuple[list[Any], float]:
        """Read the entries one by one in a transaction, so that all are of the same instant."""
        connection.execute("BEGIN", {})
        try:
            now = self._now(connection)
            names = ({"namespace": namespace, "key": key} for key in keys)
            rows = [row for name in names if (row := self.fetch_one(connection, "read_entry", name)) is not None]
        finally:
            connection.execute("COMMIT", {})
        return [row[:-1] for row in rows if Entry(*row[1:]).is_live(now)], now

    def delete_expired(self, connection: Any, statement: StatementName, params: Mapping[str, Any]) -> tuple[int, int]:
        with self.transaction(connection):
            freed = self.run(connection, statement, params).fetchall()
            self._credit(connection, freed)
            sizes = [size_bytes for _, size_bytes, _ in freed]
            total = {"freed_bytes": sum(sizes), "freed_rows": len(sizes), "freed_records": 0}
            self.run(connection, "credit_ledger", {"namespace": GLOBAL_LEDGER, **total})
        return len(sizes), sum(sizes)

    def _credit(self, connection: Any, freed: Iterable[tuple[str, int, int]]) -> None:
        """Credit entries that were deleted, each with its namespace, its bytes and its reserve of records."""
        ledgers: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for namespace, size_bytes, reserve in freed:
            ledgers[namespace].append((size_bytes, reserve))
        for namespace, entries in ledgers.items():
            sizes, reserves = zip(*entries, strict=True)
            credit = {"freed_bytes": sum(sizes), "freed_rows": len(entries), "freed_records": sum(reserves)}
            self.run(connection, "credit_ledger", {"namespace": namespace, **credit})

    def prune_records(
        self, connection: Any, statement: StatementName, params: Mapping[str, Any]
    ) -> tuple[int, int, None]:
        """Run one batch of a prune. A deleted row leaves nothing in the index, so the next batch may begin anywhere."""
        with self.transaction(connection):
            pruned = Counter(namespace for (namespace,) in self.run(connection, statement, params).fetchall())
            for namespace, records in pruned.items():
                credit = {"freed_bytes": 0, "freed_rows": 0, "freed_records": records}
                self.run(connection, "credit_ledger", {"namespace": namespace, **credit})
        return pruned.total(), pruned.total(), None

    def _now(self, connection: DriverConnection) -> float:
        return float(self.fetch_one(connection, "database_clock", {})[0])
