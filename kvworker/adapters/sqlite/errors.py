"""Translates SQLite's errors. Messages hold no value; the driver's error stays the cause."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Final

from kvworker.adapters.sql.schema import QUOTA_OF_CHECK
from kvworker.adapters.sql.signals import ConnectionLostError, QuotaRefusedError
from kvworker.errors import ConfigurationError, KVStoreError, SchemaError, StoreUnavailableError

#: By primary result code, the low byte of the extended one.
_MEANINGS: Final[Mapping[int, Callable[[], Exception]]] = {
    sqlite3.SQLITE_BUSY: lambda: StoreUnavailableError("the database stayed locked for busy_timeout_seconds"),
    sqlite3.SQLITE_LOCKED: lambda: StoreUnavailableError("a table stayed locked"),
    sqlite3.SQLITE_READONLY: lambda: StoreUnavailableError("the database is read-only"),
    sqlite3.SQLITE_IOERR: lambda: StoreUnavailableError("the database's disk failed"),
    sqlite3.SQLITE_FULL: lambda: StoreUnavailableError("the database's disk is full"),
    sqlite3.SQLITE_CANTOPEN: lambda: StoreUnavailableError(
        "the database file cannot be opened: this user may lack rights on it, its -wal, its -shm or its directory"
    ),
    sqlite3.SQLITE_NOMEM: lambda: StoreUnavailableError("the database is out of memory"),
    sqlite3.SQLITE_NOTADB: lambda: ConfigurationError("the file is not a SQLite database; correct the url"),
    sqlite3.SQLITE_CORRUPT: lambda: KVStoreError("the database file is damaged; restore it from a backup"),
}


def translate(error: Exception) -> Exception:
    """Translate an error of sqlite3 to a signal or to an error for the caller."""
    if isinstance(error, sqlite3.IntegrityError):
        return _translate_check(error)
    if isinstance(error, sqlite3.ProgrammingError):
        return ConnectionLostError("the database connection was closed")
    message = str(error)
    if message.startswith("table kv_") and message.endswith("already exists"):
        return SchemaError(
            "some of the store's tables exist, but the record of their version is missing: restore the table"
            " kv_schema_version from a backup, or use another file"
        )
    if message.startswith(("no such table", "no such column", "table kv_")):
        return SchemaError("the store's tables are missing or of another version; run `kvworker migrate`")
    code = error.sqlite_errorcode & 0xFF if isinstance(error, sqlite3.Error) else -1
    if code in _MEANINGS:
        return _MEANINGS[code]()
    return KVStoreError(f"the database failed with SQLite's result code {code}")


def cannot_connect(error: Exception, path: str | None) -> Exception:
    """Translate a failure to open the file."""
    meaning = translate(error)
    if isinstance(meaning, StoreUnavailableError):
        return StoreUnavailableError(f"cannot open the database file {path!r}: {meaning.detail}")
    return meaning


def _translate_check(error: sqlite3.IntegrityError) -> Exception:
    message = str(error)
    for constraint, quota in QUOTA_OF_CHECK.items():
        if message.endswith(constraint):
            return QuotaRefusedError(quota)
    return KVStoreError("the database refused the write by a constraint that is not the store's")
