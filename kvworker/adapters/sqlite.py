"""The ``sqlite`` adapter: SQLite 3.35 or newer, one writer at a time, for one machine."""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from kvworker.adapter_settings import SqliteSettings
from kvworker.adapters.blocks import adapter_url, engine_for, parse_block
from kvworker.adapters.dialect import (
    Dialect,
    DriverConnection,
    Limits,
    NotAnIntegerError,
    OutOfRangeError,
    Record,
    Write,
)
from kvworker.adapters.sql_adapter import SqlAdapter
from kvworker.adapters.sqlite_engine import is_in_memory, make_sqlite_engine, with_absolute_path
from kvworker.adapters.sqlite_errors import cannot_connect, translate
from kvworker.model import INT64_MAX, INT64_MIN

_JSON_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
#: The digits and the sign of the longest signed 64-bit integer.
_MAX_INTEGER_LENGTH = 20


def make_adapter(config: Mapping[str, Any]) -> SqlAdapter:
    """Make the adapter from its configuration block.

    Raises:
        ConfigurationError: the block is wrong.
    """
    settings = parse_block("sqlite", SqliteSettings, config)
    url = adapter_url("sqlite", settings, ("sqlite", "sqlite+pysqlite"))
    if url is not None:
        url = with_absolute_path(url)
    dialect = SqliteDialect(settings, url)
    return SqlAdapter(settings, dialect, engine_for("sqlite", dialect, has_url=url is not None))


class SqliteDialect(Dialect):
    """SQLite through Python's own driver."""

    name: ClassVar[str] = "sqlite"
    driver: ClassVar[str] = "pysqlite"
    driver_errors: ClassVar[tuple[type[Exception], ...]] = (sqlite3.Error,)

    def __init__(self, settings: SqliteSettings, url: URL | None) -> None:
        super().__init__()
        self._settings = settings
        self._url = url

    def make_engine(self) -> Engine:
        """Make an engine as configured, in autocommit mode."""
        assert self._url is not None  # noqa: S101 - without a url the host's engine is used
        return make_sqlite_engine(self._url, self._settings)

    def needs_fork_gate(self) -> bool:
        """Tell that it must, unless the database is its connection."""
        return self._url is not None and not is_in_memory(self._url)

    def is_idle(self, connection: sqlite3.Connection) -> bool:
        """Tell whether the connection is in no transaction."""
        return not connection.in_transaction

    def translate(self, error: Exception) -> Exception:
        """Give the error, or the signal, that the driver's error means."""
        return translate(error)

    def cannot_connect(self, error: Exception) -> Exception:
        """Give the error that a failure to open the file means."""
        return cannot_connect(error, self._url.database if self._url else None)

    @contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Run several statements as one transaction that has the write lock from its beginning."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def fetch_one(self, connection: DriverConnection, statement: str, params: Mapping[str, Any]) -> Any:
        """Run a named statement to its end, which a transaction must reach before it can commit."""
        rows = self.run(connection, statement, params).fetchall()
        return rows[0] if rows else None

    def write(self, connection: Any, write: Write, limits: Limits) -> Record:
        """Apply a write, or find its record, in one transaction."""
        with self.transaction(connection):
            recorded = self.recorded(connection, write.namespace, write.operation_id)
            if recorded is not None:
                return recorded
            if write.statement == "delete_entry":
                return self._delete(connection, write, limits)
            return self._store(connection, write, limits)

    def delete_expired(self, connection: Any, statement: str, params: Mapping[str, Any]) -> tuple[int, int]:
        """Run a batch in one transaction: rows and bytes."""
        freed: defaultdict[str, list[int]] = defaultdict(list)
        with self.transaction(connection):
            for namespace, size_bytes in self.run(connection, statement, params).fetchall():
                freed[namespace].append(size_bytes)
            total = [size_bytes for sizes in freed.values() for size_bytes in sizes]
            for ledger, sizes in {**freed, "": total}.items():
                credit = {"namespace": ledger, "freed_bytes": sum(sizes), "freed_rows": len(sizes)}
                self.run(connection, "credit_ledger", credit)
        return len(total), sum(total)

    def prune_records(self, connection: Any, params: Mapping[str, Any]) -> int:
        """Run a batch that deletes operation records past their retention: rows."""
        with self.transaction(connection):
            return len(self.run(connection, "prune_batch", params).fetchall())

    def _store(self, connection: DriverConnection, write: Write, limits: Limits) -> Record:
        params = {"namespace": write.namespace, "key": write.key, "ttl_seconds": write.ttl_seconds}
        text, kept_expiry = write.text, None
        is_increment = write.statement == "increment_entry"
        if is_increment:
            text, kept_expiry = self._incremented(connection, write)
        grown_bytes, is_new, expires_at, now = self.fetch_one(
            connection, "set_entry", {**params, "text": text, "expires_at": kept_expiry}
        )
        parts = [text] if is_increment else []
        result = " ".join([*map(str, parts), *([] if expires_at is None else [repr(expires_at)])])
        self._record(connection, write, result, limits)
        self._charge(connection, write.namespace, (grown_bytes, is_new), limits)
        return Record(write.fingerprint, result, now, replayed=False)

    def _incremented(self, connection: DriverConnection, write: Write) -> tuple[str | None, float | None]:
        params = {"namespace": write.namespace, "key": write.key}
        row = self.fetch_one(connection, "get_counter", params)
        text, expires_at = row or (None, None)
        if text is None:
            value = int(write.text or "")
        elif not _JSON_INTEGER.fullmatch(text):
            raise NotAnIntegerError
        elif len(text) > _MAX_INTEGER_LENGTH or not INT64_MIN <= int(text) <= INT64_MAX:
            raise OutOfRangeError
        else:
            value = int(text) + write.delta
        if not INT64_MIN <= value <= INT64_MAX:
            raise OutOfRangeError
        return str(value), expires_at

    def _delete(self, connection: DriverConnection, write: Write, limits: Limits) -> Record:
        params = {"namespace": write.namespace, "key": write.key}
        row = self.fetch_one(connection, "delete_entry", params)
        size_bytes, expires_at, now = row or (0, 0.0, 0.0)
        result = "true" if expires_at is None or expires_at > now else "false"
        self._record(connection, write, result, limits)
        self._charge(connection, write.namespace, (-size_bytes, -1), limits)
        return Record(write.fingerprint, result, now, replayed=False)

    def _record(self, connection: DriverConnection, write: Write, result: str, limits: Limits) -> None:
        params = {
            "namespace": write.namespace,
            "operation_id": write.operation_id,
            "fingerprint": write.fingerprint,
            "result": result,
            "retention_seconds": limits.retention_seconds,
        }
        self.run(connection, "record_operation", params)

    def _charge(self, connection: DriverConnection, namespace: str, growth: tuple[int, int], limits: Limits) -> None:
        grown_bytes, new_entries = growth
        if grown_bytes == 0:
            return
        params = {
            "namespace": namespace,
            "grown_bytes": grown_bytes,
            "new_entries": new_entries,
            "limit_bytes": limits.namespace_bytes,
            "global_limit_bytes": limits.global_bytes,
        }
        self.run(connection, "charge_ledger", params)
        self.run(connection, "charge_global_ledger", params)
