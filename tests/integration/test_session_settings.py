"""Settings of a role, a database or the environment change neither what the store holds nor what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.conversation import use_conversation_engine
from kvworker.errors import ConfigurationError, KVStoreError, NamespaceQuotaExceededError
from kvworker.model import Step
from kvworker.testing import eventually
from kvworker.testing.apply_many import make_operation

_SETTINGS = {
    "array_nulls": "off",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "DateStyle": "German",
    "default_transaction_isolation": "serializable",
    "extra_float_digits": "-15",
    "IntervalStyle": "sql_standard",
    "lock_timeout": "1ms",
    "standard_conforming_strings": "off",
    "TimeZone": "Asia/Kathmandu",
    "transform_null_equals": "on",
}
_TEXT = "\u4f60\u597d \U0001f600 \u20ac '\\ NULL"

MakeAdapter = Callable[..., KeyValueStoreAdapter]


@pytest.fixture
def make_adapter(postgres_url: str) -> Iterator[MakeAdapter]:
    made: list[KeyValueStoreAdapter] = []

    def make(**config: Any) -> KeyValueStoreAdapter:
        made.append(create_kv_store_adapter("postgres", {"url": postgres_url, **config}))
        return made[-1]

    yield make
    for adapter in made:
        adapter.close()


@pytest.fixture
def host_engine(postgres_url: str) -> Iterator[None]:
    """Make the engine of a host program, which the adapter reuses."""
    engine = create_engine(postgres_url)
    use_conversation_engine(engine)
    yield
    use_conversation_engine(None)
    engine.dispose()


def exercise(adapter: KeyValueStoreAdapter) -> None:
    """Run operations of every kind, and check what they answer."""
    assert adapter.set("n", _TEXT, _TEXT, ttl_seconds=3600).ttl_seconds == 3600
    found = adapter.get("n", _TEXT)
    assert (found.value, round(found.ttl_seconds or 0)) == (_TEXT, 3600)
    assert adapter.increment("n", "counter", initial_value=2**62).value == 2**62 + 1
    batch = adapter.batch(
        "n",
        [
            Step("set", "new", "text"),
            Step("set", "short", 1, ttl_seconds=1234.5),
            Step("increment", "counter"),
            Step("delete", "missing"),
            Step("get", _TEXT),
        ],
    )
    assert [getattr(result, "value", None) for result in batch.results[:3]] == ["text", 1, 2**62 + 2]
    together = adapter.apply_many([make_operation("set", "k", value=_TEXT), make_operation("get", _TEXT)])
    assert [getattr(result, "value", None) for result in together] == [_TEXT, _TEXT]
    assert [entry.key for entry in adapter.list_keys("n").entries] == sorted(["counter", "k", "new", "short", _TEXT])
    with pytest.raises(NamespaceQuotaExceededError):
        adapter.set("n", "large", "x" * 2**20)
    clock = adapter.clock()
    assert clock is not None
    assert clock > 1_700_000_000
    assert clock % 1 or adapter.clock() != clock
    assert adapter.clear("n", operation_id="once").deleted_entries == 5
    assert adapter.clear("n", operation_id="once").replayed
    assert adapter.sweep_expired().complete
    assert adapter.recompute_ledgers().drifts == ()


def alter_database(connection: psycopg.Connection[Any], name: str, value: str) -> None:
    target, setting = sql.Identifier(connection.info.dbname), sql.Identifier(name)
    connection.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(target, setting, value))


@pytest.mark.parametrize("prepare_threshold", [1, None])
@pytest.mark.parametrize("setting", _SETTINGS)
def test_settings_of_the_database(
    make_adapter: MakeAdapter, connection: psycopg.Connection[Any], setting: str, prepare_threshold: int | None
) -> None:
    alter_database(connection, setting, _SETTINGS[setting])
    exercise(make_adapter(prepare_threshold=prepare_threshold))


def test_settings_of_the_role(postgres_url: str, connection: psycopg.Connection[Any]) -> None:
    connection.execute("CREATE ROLE odd LOGIN SUPERUSER")
    try:
        for name, value in _SETTINGS.items():
            connection.execute(sql.SQL("ALTER ROLE odd SET {} = {}").format(sql.Identifier(name), value))
        url = make_url(postgres_url).set(username="odd").render_as_string()
        with create_kv_store_adapter("postgres", {"url": url}) as adapter:
            exercise(adapter)
    finally:
        connection.execute("DROP ROLE odd")


def test_settings_of_the_environment(make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    monkeypatch.setenv("PGOPTIONS", " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items()))
    exercise(make_adapter())


def test_a_schema_that_the_environment_names_is_used(
    make_adapter: MakeAdapter, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute("CREATE SCHEMA elsewhere")
    monkeypatch.setenv("PGOPTIONS", "-c search_path=elsewhere")
    with make_adapter() as adapter:
        adapter.migrate()
        adapter.set("n", "k", 1)
    assert connection.execute("SELECT key FROM elsewhere.kv_entries").fetchall() == [("k",)]


@pytest.mark.parametrize("setting", sorted(_SETTINGS.keys() - {"client_encoding"}))
@pytest.mark.usefixtures("host_engine")
def test_settings_of_a_host_programs_connections(connection: psycopg.Connection[Any], setting: str) -> None:
    alter_database(connection, setting, _SETTINGS[setting])
    with create_kv_store_adapter("postgres", {"reuse_conversation_store": True}) as adapter:
        exercise(adapter)


@pytest.mark.usefixtures("host_engine")
def test_a_host_programs_connections_of_another_encoding_are_refused(connection: psycopg.Connection[Any]) -> None:
    alter_database(connection, "client_encoding", "LATIN1")
    with create_kv_store_adapter("postgres", {"reuse_conversation_store": True}) as adapter:
        for use in (adapter.usage, adapter.migrate):
            with pytest.raises(ConfigurationError, match=r"client_encoding of the conversation store's .* LATIN1"):
                use()


def test_a_roles_lock_timeout_does_not_refuse_writers_that_take_turns(
    make_adapter: MakeAdapter, connection: psycopg.Connection[Any]
) -> None:
    alter_database(connection, "lock_timeout", "1ms")
    adapter = make_adapter()
    adapter.set("n", "k", 1)
    with ThreadPoolExecutor(1) as threads:
        with connection.transaction():
            connection.execute("SELECT FROM kv_entries FOR UPDATE")
            waiting = threads.submit(adapter.set, "n", "k", 2)
            # The writer must still wait when its lock_timeout has passed.
            eventually(lambda: waits_for(connection, seconds=0.02))
        assert waiting.result(timeout=60).value == 2


def waits_for(connection: psycopg.Connection[Any], seconds: float) -> bool:
    """Return whether a statement has been running for a time and waits for a lock."""
    connection.execute("SELECT pg_stat_clear_snapshot()")
    query = (
        "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        " AND clock_timestamp() > query_start + make_interval(secs => %s)"
    )
    return connection.execute(query, (seconds,)).fetchone() is not None


@pytest.mark.parametrize("state", ["22P02", "22003", "23505"])
def test_an_error_of_a_trigger_is_not_taken_for_one_of_the_write(
    make_adapter: MakeAdapter, connection: psycopg.Connection[Any], state: str
) -> None:
    """A SQLSTATE means that a counter is not an integer only in an increment, and a replay only in a write."""
    adapter = make_adapter()
    adapter.set("n", "k", 1)
    adapter.set("n", "expired", 1, ttl_seconds=0.01)
    connection.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'undone' USING ERRCODE = '{state}'; END $$"
    )
    connection.execute("CREATE TRIGGER fail BEFORE UPDATE OR DELETE ON kv_entries FOR EACH ROW EXECUTE FUNCTION fail()")
    eventually(lambda: not adapter.get("n", "expired").found)
    with pytest.raises(KVStoreError, match=f"failed with SQLSTATE {state}"):
        adapter.sweep_expired()
    if state.startswith("22"):
        with pytest.raises(KVStoreError, match=f"failed with SQLSTATE {state}"):
            adapter.set("n", "k", 2)
        with pytest.raises(KVStoreError, match=f"failed with SQLSTATE {state}"):
            adapter.batch("n", [Step("set", "k", 2), Step("increment", "counter")])
