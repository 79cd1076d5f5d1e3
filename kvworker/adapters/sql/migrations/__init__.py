"""Schema migrations: ``migrate`` brings a database to the version that this package works with.

May import ``adapters.sql.schema`` and ``errors``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.schema import CreateSchema

from kvworker.adapters.sql.schema import SCHEMA_OPTION, VERSION_TABLE, entries
from kvworker.errors import SchemaError

#: An arbitrary number, the same in every version, by which concurrent migrations of a database exclude each other.
_ADVISORY_LOCK = 0x6B76_776F_726B

# Alembic keeps the running migration in module globals, so only one thread may migrate.
_migration_lock = threading.Lock()


def migrate(engine: Engine) -> None:
    """Create the schema or update it. It is safe to repeat, and to run in several processes at once.

    Raises:
        SchemaError: a newer version of the program made the schema, or another program has a table of its names.
    """
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with _migration_lock, _locked_connection(engine) as connection:
        config.attributes["connection"] = connection
        _refuse_foreign_table(connection)
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise SchemaError(
                f"the database's schema is of a version that this program does not know ({error});"
                " use the newest version of the program"
            ) from error


@contextmanager
def _locked_connection(engine: Engine) -> Iterator[Connection]:
    if engine.dialect.name == "sqlite":
        with _locked_sqlite(engine) as connection:
            yield connection
        return
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
        # The larger the tables, the longer a migration takes: the limits for store operations do not apply.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        with _waiting_without_limit(connection.connection.driver_connection):
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            _create_schema(connection)
            yield connection


@contextmanager
def _waiting_without_limit(driver_connection: Any) -> Iterator[None]:
    limit_seconds = getattr(driver_connection, "limit_seconds", None)
    driver_connection.limit_seconds = None
    try:
        yield
    finally:
        driver_connection.limit_seconds = limit_seconds


def _create_schema(connection: Connection) -> None:
    schema = connection.get_execution_options().get(SCHEMA_OPTION)
    if schema:
        # Without the right to create one, an existing schema is enough.
        found = connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema}).first()
        if found is None:
            connection.execute(CreateSchema(schema))


def _refuse_foreign_table(connection: Connection) -> None:
    """Refuse a database in which another program has a table with one of our names, as ATLAS's store does."""
    tables = inspect(connection)
    if tables.has_table(VERSION_TABLE) or not tables.has_table(entries.name):
        return
    if "previous_bytes" in {column["name"] for column in tables.get_columns(entries.name)}:
        return
    is_sqlite = connection.dialect.name == "sqlite"
    place = "another file" if is_sqlite else "its own schema (tools.kv_store.adapters.postgres.schema)"
    raise SchemaError(
        f"the database holds another program's table {entries.name}, as the key-value store of ATLAS has; give kvworker"
        f" {place}, and copy the entries with `kvworker import --from-atlas URL`"
    )


@contextmanager
def _locked_sqlite(engine: Engine) -> Iterator[Connection]:
    # The driver would commit before DDL if it managed the transaction.
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.exec_driver_sql("ROLLBACK")
            raise
        connection.exec_driver_sql("COMMIT")
