"""The engine of a SQLite database: the place of its file, and the set-up of its connections."""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from kvworker.adapters.sql.configuration import path_of
from kvworker.adapters.sqlite.files import file_of, make_private_file
from kvworker.errors import ConfigurationError
from kvworker.settings.adapters import SqliteSettings

_RETRY_SECONDS: Final = 0.01
#: The size to which SQLite cuts its log once it begins that again from the start. While someone reads one snapshot for
#: long, as ``verify`` does, the log grows.
_LOG_BYTES: Final = 16 * 2**20


def make_sqlite_engine(url: URL, settings: SqliteSettings) -> Engine:
    """Make an engine in autocommit mode. A database in memory is migrated at once.

    Raises:
        ConfigurationError: the file's directory does not exist, or cannot be created.
    """
    in_memory = is_in_memory(url)
    if not in_memory:
        _check_directory(url, create=settings.migrate_on_start)
    pool = settings.pool
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        poolclass=QueuePool,
        # A database in memory lives in its connection: there must be exactly one, and callers take turns.
        pool_size=1 if in_memory else pool.size,
        max_overflow=0 if in_memory else pool.max_overflow,
        pool_timeout=pool.timeout,
        pool_reset_on_return=None,
        connect_args={"timeout": settings.busy_timeout_seconds, "check_same_thread": False},
    )

    @event.listens_for(engine, "do_connect")
    def _make_file(_dialect: object, _entry: object, _args: object, _arguments: object) -> None:
        if not in_memory:
            make_private_file(url)

    @event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        if not in_memory:
            _use_wal(connection, settings.busy_timeout_seconds)
            connection.execute(f"PRAGMA journal_size_limit = {_LOG_BYTES}")
        # An acknowledged write must survive a power failure; with NORMAL the last writes could be lost.
        connection.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "close")
    def _copy_log(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
        if not in_memory:
            _copy_log_to_file(connection, settings.busy_timeout_seconds)

    if in_memory:
        from kvworker.adapters.sql.migrations import migrate  # noqa: PLC0415 - Alembic takes long to import

        migrate(engine)
    return engine


def is_in_memory(url: URL) -> bool:
    """Return whether the url names a database in memory."""
    file = (url.database or "").removeprefix("file:")
    return file in {"", ":memory:"} or url.query.get("mode") == "memory"


def with_absolute_path(url: URL) -> URL:
    """Resolve a relative path now, because a forked worker may run in another directory."""
    if is_in_memory(url):
        return url
    path = url.database or ""
    scheme = "file:" if path.startswith("file:") else ""
    return url.set(database=scheme + str(Path(path.removeprefix(scheme)).absolute()))


def _check_directory(url: URL, *, create: bool) -> None:
    directory = file_of(url).parent
    if create:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"{path_of('sqlite')}.url: the directory {str(directory)!r} cannot be created: {error.strerror}"
            ) from error
    if not directory.is_dir():
        raise ConfigurationError(
            f"{path_of('sqlite')}.url: the directory {str(directory)!r} does not exist; create it, or set"
            " migrate_on_start: true. A path after three slashes is relative to the working directory,"
            " after four it is absolute: sqlite:////var/lib/kv.sqlite"
        )


def _use_wal(connection: sqlite3.Connection, timeout_seconds: float) -> None:
    """Let readers continue while one connection writes.

    SQLite does not wait if two processes switch a new file to WAL at once, so this retries.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _copy_log_to_file(connection: sqlite3.Connection, timeout_seconds: float) -> None:
    """Copy committed pages into the database's file before a connection closes.

    SQLite does this itself when the last connection closes, but not when the last two close at once.
    """
    deadline = time.monotonic() + timeout_seconds
    # A connection that is given up may be in a transaction. The log then keeps the committed pages.
    with suppress(sqlite3.Error):
        while connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[0] and time.monotonic() < deadline:
            time.sleep(_RETRY_SECONDS)
