"""Moving over from ATLAS: its table beside ours, and its entries copied with TTLs after a check of the quotas."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, cast

import pytest
from sqlalchemy import Engine, create_engine, text

from kvworker import InlineKeyValueStore
from kvworker.adapters import create_kv_store_adapter
from kvworker.client.sync import KeyValueStore
from kvworker.errors import ConfigurationError, SchemaError
from kvworker.ops.atlas import AtlasStore, check_room
from kvworker.ops.import_report import ImportReport
from kvworker.ops.transfer import Importer
from kvworker.settings import Settings

# As ATLAS creates it; on PostgreSQL the value is jsonb.
_TABLE = (
    "CREATE TABLE kv_entries (namespace TEXT NOT NULL, key TEXT NOT NULL, value {json} NOT NULL,"
    " expires_at FLOAT, size_bytes INTEGER NOT NULL, PRIMARY KEY (namespace, key))"
)
_VALUES: dict[str, Any] = {"list": [1, "é"], "number": 2**53, "null": None, "text": "x" * 100}


@pytest.fixture(params=["postgres", "sqlite"])
def atlas(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Make a database with ATLAS's table and some entries, one of them expired."""
    name = "empty_postgres_url" if request.param == "postgres" else "sqlite_url"
    engine = create_engine(request.getfixturevalue(name))
    with engine.begin() as connection:
        connection.execute(text(_TABLE.format(json="JSONB" if request.param == "postgres" else "JSON")))
        for key, value in _VALUES.items():
            insert(connection, key, value, None)
        insert(connection, "expiring", 1, time.time() + 3600)
        insert(connection, "expired", 1, time.time() - 5)
    yield engine
    engine.dispose()


def insert(connection: Any, key: str, value: Any, expires_at: float | None) -> None:
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    statement = "INSERT INTO kv_entries VALUES ('atlas', :key, :value, :expires_at, :size)"
    if connection.dialect.name == "postgresql":
        statement = statement.replace(":value", "cast(:value AS jsonb)")
    size = len(data.encode())
    connection.execute(text(statement), {"key": key, "value": data, "expires_at": expires_at, "size": size})


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def make_store(**sqlite: Any) -> InlineKeyValueStore:
    block = {"url": "sqlite://", **sqlite}
    settings = {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": block}}}}
    return InlineKeyValueStore(Settings.from_mapping(settings))


def copy(engine: Engine, store: InlineKeyValueStore) -> ImportReport:
    with closing(AtlasStore(url_of(engine))) as atlas:
        check_room(cast(KeyValueStore, store), atlas.contents())
        importer = Importer(cast(KeyValueStore, store), str(time.time_ns()), timeout=None, only_absent=True)
        return importer.run(atlas.lines, lambda _size: None)


def test_live_entries_are_copied_with_their_ttls(atlas: Engine) -> None:
    with make_store() as store:
        report = copy(atlas, store)
        assert (report.applied, report.errors) == (5, [])
        assert {key: store.get("atlas", key).value for key in _VALUES} == _VALUES
        assert 3000 < (store.get("atlas", "expiring").ttl_seconds or 0) <= 3600
        assert not store.get("atlas", "expired").found


def test_a_repeated_copy_leaves_newer_values(atlas: Engine) -> None:
    with make_store() as store:
        copy(atlas, store)
        store.set("atlas", "number", "newer")
        report = copy(atlas, store)
        assert (report.applied, report.present, report.errors) == (0, 5, [])
        assert store.get("atlas", "number").value == "newer"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"namespace_quota_bytes": 100}, "namespace 'atlas' needs .* bytes, and its quota is 100"),
        ({"global_quota_bytes": 100}, "the global quota is 100"),
        ({"namespace_entry_limit": 4}, "namespace 'atlas' needs 5 entries, and its limit is 4"),
    ],
)
def test_quotas_are_checked_before_anything_is_written(atlas: Engine, limits: dict[str, int], reason: str) -> None:
    with make_store(**limits) as store:
        with pytest.raises(ConfigurationError, match=reason):
            copy(atlas, store)
        assert store.usage("atlas").entry_count == 0


def test_atlass_table_is_recognized_and_left_alone(atlas: Engine) -> None:
    name = "sqlite" if atlas.dialect.name == "sqlite" else "postgres"
    adapter = create_kv_store_adapter(name, {"url": url_of(atlas)})
    with (
        adapter,
        pytest.raises(SchemaError, match=r"another program's table kv_entries, as .* ATLAS has.*--from-atlas"),
    ):
        adapter.migrate()
    with atlas.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM kv_entries")).scalar_one() == 6


def test_both_stores_share_a_database_with_a_schema_of_its_own(empty_postgres_url: str) -> None:
    engine = create_engine(empty_postgres_url)
    with engine.begin() as connection:
        connection.execute(text(_TABLE.format(json="JSONB")))
        insert(connection, "key", [1], None)
    with create_kv_store_adapter("postgres", {"url": empty_postgres_url, "schema": "kvworker"}) as adapter:
        adapter.migrate()
        adapter.migrate()
        adapter.set("n", "k", 1)
        assert adapter.get("n", "k").value == 1
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM kvworker.kv_entries")).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM public.kv_entries")).scalar_one() == 1
    engine.dispose()


@pytest.mark.parametrize(
    "block",
    [
        {"url": "postgresql://u@h/d", "schema": "Odd name"},
        {"url": "postgresql://u@h/d", "schema": "s", "prepare_threshold": None},
        {"reuse_conversation_store": True, "schema": "s"},
    ],
)
def test_a_schema_that_cannot_apply_is_refused(block: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        create_kv_store_adapter("postgres", block)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "not a database url"),
        ("mongodb://h/d", "not a database url|neither"),
        ("sqlite:////no/such/directory/file", "cannot be read"),
    ],
)
def test_a_wrong_url_is_one_clear_error(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason), closing(AtlasStore(url)) as atlas:
        atlas.contents()


def test_a_password_is_not_shown(empty_postgres_url: str) -> None:
    url = empty_postgres_url.replace("postgres@", "nobody:the-secret@")
    with pytest.raises(ConfigurationError) as caught, closing(AtlasStore(url)) as atlas:
        atlas.contents()
    assert "the-secret" not in str(caught.value)
