"""Schema migrations: ``migrate`` brings a database to the version that this package works with.

May import ``adapters.sql.schema`` and ``errors``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateSchema
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from kvworker.adapters.sql.migrations.plan import LOCK_TIMEOUT_SECONDS, PlannedStep, as_script, plan_step
from kvworker.adapters.sql.migrations.revisions import State, read_state, steps_from
from kvworker.adapters.sql.schema import SCHEMA_OPTION, VERSION_TABLE, entries
from kvworker.errors import SchemaError

__all__ = ["PlannedStep", "migrate", "plan_migration", "script_of", "upgrade_to"]

#: An arbitrary number, the same in every version, by which concurrent migrations of a database exclude each other.
_ADVISORY_LOCK: Final = 0x6B76_776F_726B
_LOCK_NOT_AVAILABLE: Final = "55P03"
#: The time for which a step is retried while its table is locked. Each attempt waits only briefly.
_LOCK_ATTEMPTS_SECONDS: Final = 120.0

# Alembic keeps the running migration in module globals, so only one thread may migrate.
_migration_lock = threading.Lock()


def migrate(engine: Engine, *, finish: bool = False) -> None:
    """Create the schema or update it. It is safe to repeat, and to run in several processes at once.

    Args:
        engine: The database.
        finish: End the support of the previous release as well. An empty database needs no such care.

    Raises:
        SchemaError: a newer version of the program made the schema, or another program has a table of its names.
    """
    with _migration_lock:
        while Retrying(
            retry=retry_if_exception(_is_locked),
            stop=stop_after_delay(_LOCK_ATTEMPTS_SECONDS),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            reraise=True,
        )(_migrate_once, engine, finish=finish):
            pass


def plan_migration(engine: Engine, *, finish: bool = False) -> list[PlannedStep]:
    """Return what ``migrate`` would do now. It changes nothing."""
    with _migration_lock, engine.connect() as connection:
        _refuse_foreign_table(connection)
        return [plan_step(step, engine.dialect) for step in steps_from(read_state(connection), finish=finish)]


def script_of(engine: Engine, *, finish: bool = False) -> str:
    """Return the same as SQL that psql or sqlite3 can run."""
    schema = engine.get_execution_options().get(SCHEMA_OPTION)
    quoted = engine.dialect.identifier_preparer.quote(schema) if schema else ""
    prefix = f"CREATE SCHEMA IF NOT EXISTS {quoted};\nSET search_path = {quoted};\n" if schema else ""
    return prefix + as_script(plan_migration(engine, finish=finish), engine.dialect)


def upgrade_to(connection: Connection, revision: str) -> None:
    """Bring a database in an open transaction to an old version."""
    context = MigrationContext.configure(connection)
    for step in steps_from(read_state(connection), finish=True, until=revision):
        step.run(context)


def _migrate_once(engine: Engine, *, finish: bool) -> bool:
    """Make the next step, or create the whole schema; return whether a step may be missing still."""
    with _locked_connection(engine) as connection:
        _refuse_foreign_table(connection)
        state = read_state(connection)
        steps = steps_from(state, finish=finish)
        context = MigrationContext.configure(connection)
        for step in steps if _is_new(state) else steps[:1]:
            step.run(context)
    return len(steps) > 1 and not _is_new(state)


def _is_new(state: State) -> bool:
    return state.version is None


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE


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
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            set_timeout = sa.text("SELECT set_config('lock_timeout', :timeout, true)")
            connection.execute(set_timeout, {"timeout": f"{LOCK_TIMEOUT_SECONDS * 1000:.0f}ms"})
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
        found = connection.execute(sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name"), {"name": schema})
        if found.first() is None:
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
