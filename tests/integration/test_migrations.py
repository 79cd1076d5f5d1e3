from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text

from kvworker.adapters import create_kv_store_adapter
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.migrations import migrate, plan_migration, script_of, upgrade_to
from kvworker.adapters.sql.migrations.revisions import State, revisions, steps_from
from kvworker.adapters.sql.recorded_refusals import attempt
from kvworker.adapters.sql.schema import PREVIOUS_VERSION, SCHEMA_VERSION, metadata
from kvworker.errors import ConfigurationError, IdempotencyConflictError, InvalidValueTypeError, SchemaError
from kvworker.testing import eventually
from tests.support.servers import PostgresServer
from tests.support.store_processes import running_processes

_POSTGRES_CATALOGUE = (
    "SELECT relname, relkind::text, reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, attnum,"
    " (SELECT collname FROM pg_collation c WHERE c.oid = attcollation)"
    " FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
    " WHERE relnamespace = 'public'::regnamespace AND attnum > 0",
    # A renamed table keeps the names of its columns' NOT NULL, which PostgreSQL 18 lists here.
    "SELECT conname, conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace AND contype <> 'n'",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
)
# SQLite keeps each table's statement as written, appends added columns to it, and quotes its new name. The
# name of a primary key means nothing to it.
_SQLITE_CATALOGUE = (
    "SELECT type, name, tbl_name, replace(replace(replace(replace(replace("
    "sql, char(10), ''), char(9), ''), ' ', ''), '\"', ''), 'CONSTRAINTkv_operations_pkey', '')"
    " FROM sqlite_master",
)


@pytest.fixture(params=["postgres", "sqlite"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    name = "empty_postgres_url" if request.param == "postgres" else "sqlite_url"
    engine = create_engine(request.getfixturevalue(name))
    yield engine
    engine.dispose()


def catalogue(engine: Engine) -> list[tuple[Any, ...]]:
    queries = _SQLITE_CATALOGUE if engine.dialect.name == "sqlite" else _POSTGRES_CATALOGUE
    with engine.connect() as connection:
        rows = [tuple(row) for query in queries for row in connection.execute(text(query))]
    return sorted((row for row in rows if "kv_schema_version" not in str(row)), key=repr)


def block(engine: Engine) -> dict[str, Any]:
    return {"url": engine.url.render_as_string(hide_password=False)}


def adapter_name(engine: Engine) -> str:
    return "sqlite" if engine.dialect.name == "sqlite" else "postgres"


def test_migrating_equals_creating(engine: Engine) -> None:
    metadata.create_all(engine)
    created = catalogue(engine)
    metadata.drop_all(engine)
    migrate(engine)
    assert catalogue(engine) == created
    assert created


def test_the_newest_migration_is_the_version_that_the_adapters_need() -> None:
    assert list(revisions())[-1] == SCHEMA_VERSION


_LEDGERS_0002 = (
    "INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes, quota_bytes)"
    " VALUES ('n', 5, 1, 50, 40), ('', 5, 1, NULL, NULL)"
)


def test_ledgers_of_the_previous_version_are_kept(engine: Engine) -> None:
    with engine.begin() as connection:
        upgrade_to(connection, "0002")
        connection.execute(text(_LEDGERS_0002))
    migrate(engine)
    with engine.connect() as connection:
        ledgers = connection.execute(text("SELECT * FROM kv_ledgers ORDER BY namespace"))
        assert [tuple(row) for row in ledgers] == [
            (*ledger, 1, None, 0, 0, None, 0) for ledger in (("", 5, 1, None, None, 0, 0), ("n", 5, 1, 50, 40, 0, 0))
        ]
        assert connection.execute(text("SELECT name, total FROM kv_totals")).all() == [("namespaces", 1)]


def test_shares_of_the_previous_version_are_merged(empty_postgres_url: str) -> None:
    engine = create_engine(empty_postgres_url)
    with engine.begin() as connection:
        upgrade_to(connection, "0003")
        connection.execute(
            text(
                "INSERT INTO kv_ledgers (namespace, slot, used_bytes, entry_count, limit_bytes, lent_bytes)"
                " VALUES ('n', 0, 5, 1, 50, 20), ('n', 1, 7, 2, 10, 0), ('n', 2, -1, -1, 10, 0)"
            )
        )
    migrate(engine)
    with engine.connect() as connection:
        ledgers = connection.execute(text("SELECT slot, used_bytes, entry_count, lent_bytes FROM kv_ledgers"))
        assert ledgers.all() == [(0, 11, 2, 0)]
    engine.dispose()


def make_previous(engine: Engine) -> None:
    with engine.begin() as connection:
        upgrade_to(connection, PREVIOUS_VERSION)


def opened(engine: Engine) -> SqlAdapter:
    adapter = create_kv_store_adapter(adapter_name(engine), block(engine))
    assert isinstance(adapter, SqlAdapter)
    return adapter


def test_a_schema_of_the_previous_release_is_expanded_and_later_finished(engine: Engine) -> None:
    """Workers of the previous release look only at the version, which stays until the migration is finished."""
    make_previous(engine)
    with opened(engine) as adapter:
        with pytest.raises(SchemaError, match=f"version {PREVIOUS_VERSION}.*kvworker migrate"):
            adapter.set("n", "k", 1)
        adapter.migrate()
        assert (adapter.schema_version(), adapter.expanded_version()) == (PREVIOUS_VERSION, SCHEMA_VERSION)
        adapter.set("n", "k", 1, operation_id="once")
        report = adapter.verify()
        assert report is not None
        assert (report.problems, report.records) == ((), 1)
        adapter.migrate()
        assert adapter.schema_version() == PREVIOUS_VERSION
        adapter.migrate(finish=True)
        assert (adapter.schema_version(), adapter.expanded_version()) == (SCHEMA_VERSION, None)
        assert adapter.set("n", "k", 1, operation_id="once").replayed
    expanded = catalogue(engine)
    metadata.drop_all(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE kv_schema_version"))
    migrate(engine)
    assert catalogue(engine) == expanded


def test_what_was_recorded_before_the_end_of_a_migration_is_known_after_it(engine: Engine) -> None:
    """Replays, conflicts and refusals, and the records are still counted and pruned."""
    make_previous(engine)
    migrate(engine)
    with opened(engine) as adapter:
        adapter.set("n", "text", "x", operation_id="set", ttl_seconds=60)
        with attempt("first"), pytest.raises(InvalidValueTypeError):
            adapter.increment("n", "text", operation_id="increment")
        migrate(engine, finish=True)
        # This adapter has not looked at the version again.
        again = adapter.set("n", "text", "x", operation_id="set", ttl_seconds=60)
        assert again.replayed
        assert again.version == adapter.get("n", "text").version
        with pytest.raises(IdempotencyConflictError):
            adapter.set("n", "text", "y", operation_id="set")
        with attempt("second"), pytest.raises(InvalidValueTypeError):
            adapter.increment("n", "text", operation_id="increment")
        adapter.set("n", "text", 1)
        for name in ("first", "second"):
            with attempt(name), pytest.raises(InvalidValueTypeError):
                adapter.increment("n", "text", operation_id="increment")
        with attempt("third"):
            assert adapter.increment("n", "text", operation_id="increment").value == 2
        assert adapter.recompute_ledgers().drifts == ()
        report = adapter.verify()
        assert report is not None
        assert (report.problems, report.records) == ((), 3)
        with engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE kv_operations_0004 SET expires_at = expires_at - interval '2 days'"
                    if engine.dialect.name == "postgresql"
                    else "UPDATE kv_operations_0004 SET expires_at = 0"
                )
            )
        assert adapter.prune_operations().deleted_rows == 1
        assert not adapter.was_applied("n", "set")
        assert adapter.recompute_ledgers().drifts == ()


def run_script(engine: Engine, script: str) -> None:
    if engine.dialect.name == "sqlite":
        with closing(sqlite3.connect(str(engine.url.database))) as connection:
            connection.executescript(script)
        return
    with psycopg.connect(block(engine)["url"].replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(script.encode())


@pytest.mark.parametrize("begin", ["an empty database", "the previous release"])
def test_the_script_makes_the_same_schema(engine: Engine, begin: str) -> None:
    """An administrator may run the output of ``kvworker migrate --sql`` instead of the command."""
    if begin == "the previous release":
        make_previous(engine)
    run_script(engine, script_of(engine, finish=True))
    with opened(engine) as adapter:
        assert adapter.schema_version() == SCHEMA_VERSION
        adapter.set("n", "k", 1)
    by_script = catalogue(engine)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    assert catalogue(engine) == by_script
    assert script_of(engine, finish=True) == ""


def test_a_plan_changes_nothing(engine: Engine) -> None:
    assert [step.title[:13] for step in plan_migration(engine)][-2:] == ["0005, expand:", "0005, contrac"]
    assert catalogue(engine) == []
    make_previous(engine)
    before = catalogue(engine)
    assert [step.title[:13] for step in plan_migration(engine)] == ["0005, expand:"]
    assert [step.title[:13] for step in plan_migration(engine, finish=True)] == ["0005, expand:", "0005, contrac"]
    assert catalogue(engine) == before


_HELD_LOCKS = (
    "SELECT c.relname, replace(l.mode, 'Lock', '') FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
    " WHERE l.pid = pg_backend_pid() AND c.relkind IN ('r', 'p') AND starts_with(c.relname, 'kv_')"
)
_FILES = "SELECT relname, relfilenode FROM pg_class WHERE starts_with(relname, 'kv_') ORDER BY relname"


def test_the_plan_names_every_lock_and_no_table_is_rewritten(empty_postgres_url: str) -> None:
    engine = create_engine(empty_postgres_url)
    make_previous(engine)
    names = {name.replace(" ", "").lower(): name for name in ("SHARE UPDATE EXCLUSIVE", "ACCESS EXCLUSIVE", "SHARE")}
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO kv_entries SELECT 'n', i, '1', NULL, 1, 0 FROM generate_series(1, 9) i"))
        files = connection.execute(text(_FILES)).all()
    for step in plan_migration(engine, finish=True):
        planned = {(s.table, s.lock) for s in step.statements if s.lock in names.values()}
        with engine.begin() as connection:
            for statement in step.statements:
                connection.exec_driver_sql(statement.text)
            found = connection.exec_driver_sql(_HELD_LOCKS).all()
        # A renamed table is locked under both names.
        held = {(table.removesuffix("_0004"), names.get(mode.lower())) for table, mode in found}
        assert {lock for lock in held if lock[1]} == planned
    with engine.connect() as connection:
        now = {name.removesuffix("_0004"): file for name, file in connection.execute(text(_FILES))}
    assert now.items() >= dict(map(tuple, files)).items()
    engine.dispose()


def test_a_migration_waits_for_a_locked_table_without_blocking_writers(empty_postgres_url: str) -> None:
    """It gives up on the lock after a moment and tries again, so that writers behind it go on."""
    engine = create_engine(empty_postgres_url)
    make_previous(engine)
    with engine.connect() as holder, ThreadPoolExecutor(1) as thread:
        # Another migration or a vacuum by hand takes the same lock.
        holder.execute(text("LOCK TABLE kv_operations IN SHARE UPDATE EXCLUSIVE MODE"))
        migration = thread.submit(migrate, engine)
        waits = text("SELECT sum(calls) FROM (SELECT 1 AS calls FROM pg_locks WHERE NOT granted) l")
        with engine.connect() as watcher:
            eventually(lambda: bool(watcher.execute(waits).scalar()), timeout_seconds=60)
            eventually(lambda: not watcher.execute(waits).scalar(), timeout_seconds=60)
        assert not migration.done()
        holder.rollback()
        migration.result(timeout=60)
    with opened(engine) as adapter:
        assert adapter.expanded_version() == SCHEMA_VERSION
    engine.dispose()


def test_migrating_again_changes_nothing(engine: Engine) -> None:
    migrate(engine)
    with create_kv_store_adapter(adapter_name(engine), block(engine)) as adapter:
        adapter.set("namespace", "key", 1)
        adapter.migrate()
        assert adapter.get("namespace", "key").value == 1


def test_processes_may_migrate_at_the_same_moment(engine: Engine) -> None:
    with running_processes() as processes:
        url = block(engine)["url"]
        for future in [processes.submit(migrate_url, url) for _ in range(4)]:
            future.result()
    with create_kv_store_adapter(adapter_name(engine), block(engine)) as adapter:
        assert adapter.schema_version() == SCHEMA_VERSION


def migrate_url(url: str) -> None:
    engine = create_engine(url)
    migrate(engine)
    engine.dispose()


def test_threads_may_migrate_on_start_at_the_same_moment(engine: Engine) -> None:
    config = {**block(engine), "migrate_on_start": True}
    barrier = threading.Barrier(4)

    def use(number: int) -> None:
        with create_kv_store_adapter(adapter_name(engine), config) as adapter:
            barrier.wait(timeout=30)
            adapter.set("namespace", str(number), number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
    with create_kv_store_adapter(adapter_name(engine), config) as adapter:
        assert adapter.usage("namespace")[0].entry_count == 4


def test_a_database_without_the_schema_says_what_to_do(engine: Engine) -> None:
    with create_kv_store_adapter(adapter_name(engine), block(engine)) as adapter:
        with pytest.raises(SchemaError, match="kvworker migrate"):
            adapter.get("namespace", "key")
        with pytest.raises(SchemaError, match="kvworker migrate"):
            adapter.schema_version()
        adapter.migrate()
        adapter.set("namespace", "key", 1)


def test_a_schema_of_another_version_is_refused(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE kv_schema_version SET version_num = '9999'"))
    adapter = create_kv_store_adapter(adapter_name(engine), block(engine))
    with adapter, pytest.raises(SchemaError, match="9999"):
        adapter.set("namespace", "key", 1)


def test_a_running_process_notices_that_the_database_was_migrated(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvworker.adapters.sql.executor.SCHEMA_CHECK_SECONDS", 0.2)
    migrate(engine)
    with create_kv_store_adapter(adapter_name(engine), block(engine)) as adapter:
        adapter.set("n", "k", 1)
        with engine.begin() as connection:
            connection.execute(text("UPDATE kv_schema_version SET version_num = '9999'"))
        with pytest.raises(SchemaError, match="9999"):
            eventually(lambda: adapter.set("n", "k", 2) is None)
        with engine.begin() as connection:
            connection.execute(text("UPDATE kv_schema_version SET version_num = :version"), {"version": SCHEMA_VERSION})
        assert adapter.set("n", "k", 3).value == 3


def test_a_newer_schema_is_not_migrated(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE kv_schema_version SET version_num = '9999'"))
    adapter = create_kv_store_adapter(adapter_name(engine), {**block(engine), "migrate_on_start": True})
    with adapter, pytest.raises(SchemaError, match="newest version of the program"):
        adapter.get("namespace", "key")


def test_tables_without_their_version_are_reported(engine: Engine) -> None:
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE kv_schema_version"))
    adapter = create_kv_store_adapter(adapter_name(engine), block(engine))
    with adapter, pytest.raises(SchemaError, match="the record of their version is missing"):
        adapter.migrate()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused(postgres_server: PostgresServer, encoding: str) -> None:
    postgres_server.execute(
        f"CREATE DATABASE kv_other TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    adapter = create_kv_store_adapter("postgres", {"url": postgres_server.url("kv_other")})
    with adapter:
        for use in (adapter.migrate, adapter.usage, adapter.schema_version):
            with pytest.raises(ConfigurationError, match=f"encoding is {encoding}.* ENCODING 'UTF8'"):
                use()
    postgres_server.drop_database("kv_other")


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_a_sqlite_file_of_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    """A host program made the file: text in UTF-16 has another order, and prefixes find other namespaces' entries."""
    with closing(sqlite3.connect(tmp_path / "host.sqlite")) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("CREATE TABLE conversations (id)")
    for config in ({"migrate_on_start": True}, {}):
        adapter = create_kv_store_adapter("sqlite", {"url": f"sqlite:///{tmp_path}/host.sqlite", **config})
        with adapter:
            for use in (adapter.migrate, adapter.usage, adapter.schema_version):
                with pytest.raises(ConfigurationError, match=f"text is {encoding}"):
                    use()


def test_writes_that_wait_for_the_end_of_a_migration_are_applied(empty_postgres_url: str) -> None:
    """All of them fail at the same moment, and the first one of the process to look finds the new version."""
    engine = create_engine(empty_postgres_url)
    make_previous(engine)
    migrate(engine)
    (finish,) = steps_from(State(PREVIOUS_VERSION, SCHEMA_VERSION), finish=True)
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'kv_operations'::regclass")
    with opened(engine) as adapter, ThreadPoolExecutor(5) as threads:
        adapter.set("n", "first", 0)
        with engine.connect() as migration, engine.connect() as watcher:
            finish.run(MigrationContext.configure(migration))
            writes = [threads.submit(adapter.increment, "n", str(n), operation_id=str(n)) for n in range(4)]
            eventually(lambda: watcher.execute(waiting).scalar() == len(writes), timeout_seconds=60)
            check = threads.submit(adapter.verify)
            eventually(lambda: watcher.execute(waiting).scalar() == len(writes) + 1, timeout_seconds=60)
            migration.commit()
        assert [write.result(timeout=60).value for write in writes] == [1, 1, 1, 1]
        report = check.result(timeout=60)
        assert report is not None
        assert report.problems == ()
        assert all(adapter.increment("n", str(n), operation_id=str(n)).replayed for n in range(4))
    engine.dispose()


def test_workers_keep_their_rights_when_a_migration_is_finished(empty_postgres_url: str) -> None:
    """Also where the rights on the new table were not granted, and where another user than their owner migrates."""
    engine = create_engine(empty_postgres_url)
    make_previous(engine)
    names = [f"\"kv '{kind}' {os.getpid()}\"" for kind in ("worker", "owner")]
    execute = partial(run_script, engine)
    tables = "kv_entries, kv_ledgers, kv_operations, kv_totals, kv_schema_version"
    for name in names:
        execute(f"CREATE ROLE {name} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {name}")
    execute(f"ALTER TABLE kv_operations OWNER TO {names[1]}")
    try:
        migrate(engine)
        for finish in (False, True):
            migrate(engine, finish=finish)
            for name in names:
                url = engine.url.set(username=name.strip('"')).render_as_string(hide_password=False)
                with create_kv_store_adapter("postgres", {"url": url}) as adapter:
                    assert adapter.set("n", "k", 1, operation_id=name).replayed is finish
                    adapter.set("n", "k", 2)
                    adapter.prune_operations()
    finally:
        execute("".join(f"REASSIGN OWNED BY {n} TO CURRENT_USER; DROP OWNED BY {n}; DROP ROLE {n};" for n in names))
        engine.dispose()


def test_partitioned_tables_are_migrated(postgres_server: PostgresServer, empty_postgres_url: str) -> None:
    """Parameters of a table are those of its partitions."""
    engine = create_engine(empty_postgres_url)
    make_previous(engine)
    postgres_server.partition_tables(str(engine.url.database), records="kv_operations")
    migrate(engine)
    with engine.connect() as connection:
        partitions = "SELECT reloptions IS NOT NULL FROM pg_class WHERE relname ~ '^kv_(entries|ledgers|operations)_.$'"
        options = connection.execute(text(partitions)).scalars().all()
        assert options
        assert all(options)
    with opened(engine) as adapter:
        for finish in (False, True):
            migrate(engine, finish=finish)
            for name in "abcdef":
                assert adapter.set(name, "k", 1, operation_id="once").replayed is finish
        assert adapter.recompute_ledgers().drifts == ()
        report = adapter.verify()
        assert report is not None
        assert (report.problems, report.records) == ((), 6)
    engine.dispose()
