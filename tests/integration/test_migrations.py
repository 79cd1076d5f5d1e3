from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text

from kvworker.adapters import create_kv_store_adapter
from kvworker.adapters.sql import migrations
from kvworker.adapters.sql.migrations import migrate
from kvworker.adapters.sql.schema import SCHEMA_VERSION, metadata
from kvworker.errors import ConfigurationError, SchemaError
from kvworker.testing import eventually
from tests.support.servers import PostgresServer
from tests.support.store_processes import running_processes

_POSTGRES_CATALOGUE = (
    "SELECT relname, relkind::text, reloptions::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull, attnum,"
    " (SELECT collname FROM pg_collation c WHERE c.oid = attcollation)"
    " FROM pg_attribute JOIN pg_class c ON c.oid = attrelid"
    " WHERE relnamespace = 'public'::regnamespace AND attnum > 0",
    "SELECT conname, conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
)
# SQLite keeps each table's statement as written, and appends added columns to it.
_SQLITE_CATALOGUE = (
    "SELECT type, name, tbl_name, replace(replace(replace(sql, char(10), ''), char(9), ''), ' ', '')"
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
    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    assert ScriptDirectory.from_config(config).get_heads() == [SCHEMA_VERSION]


_LEDGERS_0002 = (
    "INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes, quota_bytes)"
    " VALUES ('n', 5, 1, 50, 40), ('', 5, 1, NULL, NULL)"
)


def test_ledgers_of_the_previous_version_are_kept(engine: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
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
    config = Config()
    config.set_main_option("script_location", next(iter(migrations.__path__)))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
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
