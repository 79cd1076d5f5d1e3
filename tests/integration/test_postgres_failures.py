"""If PostgreSQL fails, an operation soon raises a helpful error, and the store stays correct."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.errors import ConfigurationError, StoreUnavailableError
from kvworker.testing import eventually
from kvworker.testing.apply_many import make_operation
from tests.support.elapsed import finishes_within
from tests.support.servers import PostgresServer


@pytest.fixture
def adapter(postgres_url: str) -> Iterator[KeyValueStoreAdapter]:
    with make_adapter(postgres_url) as adapter:
        adapter.set("namespace", "key", 1)
        yield adapter


def make_adapter(url: str, **config: Any) -> KeyValueStoreAdapter:
    return create_kv_store_adapter("postgres", {"url": url, **config})


@contextmanager
def bare_connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    parsed = make_url(url)
    host = str(parsed.query["host"])
    with psycopg.connect(host=host, user=parsed.username, dbname=parsed.database, autocommit=True) as connection:
        yield connection


def test_a_process_that_freezes_in_a_transaction_loses_its_locks(postgres_url: str) -> None:
    frozen, other = make_adapter(postgres_url, statement_timeout_seconds=0.3), make_adapter(postgres_url)
    assert isinstance(frozen, SqlAdapter)
    with frozen, other, bare_connection(postgres_url) as watch:
        other.set("namespace", "key", 1)

        def freeze(connection: Any) -> None:
            with frozen._dialect.transaction(connection):
                connection.execute("SELECT FROM kv_entries FOR UPDATE")
                pid = connection.info.backend_pid
                query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
                eventually(lambda: watch.execute(query, (pid,)).fetchone() == (0,))
                connection.execute("SELECT 1")

        with pytest.raises(StoreUnavailableError, match="was idle"):
            frozen._executor.run(freeze)
        assert other.set("namespace", "key", 2, operation_id="operation").value == 2


def test_clear_removes_entries_that_were_written_while_it_waited(postgres_url: str) -> None:
    with make_adapter(postgres_url) as adapter, ThreadPoolExecutor(1) as threads:
        for key in "abc":
            adapter.set("namespace", key, 1)
        with bare_connection(postgres_url) as holder, bare_connection(postgres_url) as watch:
            with holder.transaction():
                holder.execute("SELECT FROM kv_entries WHERE key = 'b' FOR UPDATE")
                clearing = threads.submit(adapter.clear, "namespace")
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
                eventually(lambda: watch.execute(waiting).fetchone() == (1,))
                adapter.set("namespace", "new", 1)
                adapter.set("namespace", "c", 2)
            assert clearing.result(timeout=20).deleted_entries == 4
        assert adapter.list_keys("namespace").entries == ()
        assert adapter.recompute_ledgers().drifts == ()


def test_a_restart_fails_no_operation(adapter: KeyValueStoreAdapter, postgres_server: PostgresServer) -> None:
    postgres_server.stop("immediate")
    postgres_server.start()
    assert adapter.get("namespace", "key").value == 1
    postgres_server.stop()
    postgres_server.start()
    assert adapter.increment("namespace", "key", operation_id="operation").value == 2


def test_a_server_that_is_away_is_an_error_until_it_is_back(
    adapter: KeyValueStoreAdapter, postgres_server: PostgresServer
) -> None:
    postgres_server.stop("immediate")
    try:
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="cannot connect") as caught:
                adapter.increment("namespace", "key", operation_id="operation")
            assert caught.value.operation_id == "operation"
            assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    finally:
        postgres_server.start()
    assert adapter.increment("namespace", "key", operation_id="operation").value == 2


def test_killed_connections_fail_no_operation(adapter: KeyValueStoreAdapter, postgres_url: str) -> None:
    with bare_connection(postgres_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    assert adapter.increment("namespace", "key").value == 2


def test_a_lock_held_too_long_is_an_error_and_nothing_is_done(postgres_url: str) -> None:
    with make_adapter(postgres_url, statement_timeout_seconds=0.2) as adapter:
        adapter.set("namespace", "key", 1)
        with bare_connection(postgres_url) as connection, connection.transaction():
            connection.execute("SELECT FROM kv_entries FOR UPDATE")
            with pytest.raises(StoreUnavailableError, match="statement_timeout_seconds"):
                adapter.increment("namespace", "key", operation_id="operation")
        assert not adapter.was_applied("namespace", "operation")
        assert adapter.increment("namespace", "key", operation_id="operation").value == 2


@pytest.mark.parametrize("table", ["kv_entries", "kv_ledgers"])
def test_apply_many_does_not_wait_for_locks(postgres_url: str, table: str) -> None:
    operations = [make_operation("set", f"key {number}", value="x" * number) for number in range(3)]
    with make_adapter(postgres_url) as adapter, bare_connection(postgres_url) as connection:
        adapter.set("n", "key 1", "longer than that")
        with connection.transaction():
            connection.execute(f"SELECT FROM {table} FOR UPDATE")
            with finishes_within(5):
                assert adapter.apply_many(operations) == [None] * 3
        assert None not in adapter.apply_many(operations)
        assert adapter.recompute_ledgers().drifts == ()


@pytest.mark.parametrize("state", ["40001", "23505", "22P02", "57014", "53100"])
def test_a_failed_apply_many_leaves_nothing_behind(
    adapter: KeyValueStoreAdapter, postgres_url: str, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    operations = [make_operation("set", f"new {number}", value=number) for number in range(3)]
    with bare_connection(postgres_url) as connection:
        fail_writes(connection, [state] * 20)
        assert (
            adapter.apply_many([*operations, make_operation("increment", "key", namespace="namespace")]) == [None] * 4
        )
        # Enough that the error arrives while they are still being sent.
        assert adapter.apply_many([*operations] * 100) == [None] * 300
        assert connection.execute("SELECT key FROM kv_entries").fetchall() == [("key",)]
        connection.execute("DROP TRIGGER fail ON kv_entries")
    results = adapter.apply_many(operations)
    assert [getattr(result, "value", None) for result in results] == [0, 1, 2]
    assert not caplog.records


def test_killed_connections_fail_no_apply_many(adapter: KeyValueStoreAdapter, postgres_url: str) -> None:
    with bare_connection(postgres_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    counted, read = adapter.apply_many(
        [make_operation("increment", "key", namespace="namespace"), make_operation("get", "none")]
    )
    assert getattr(counted, "value", None) == 2
    assert read is not None


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_an_operation_that_the_database_rolled_back_is_retried(
    adapter: KeyValueStoreAdapter, postgres_url: str, state: str
) -> None:
    with bare_connection(postgres_url) as connection:
        fail_writes(connection, [state] * 3)
        assert adapter.increment("namespace", "key", operation_id="operation").value == 2
        assert connection.execute("SELECT last_value FROM failures").fetchone() == (4,)


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_retries_of_an_operation_end(adapter: KeyValueStoreAdapter, postgres_url: str, state: str) -> None:
    with bare_connection(postgres_url) as connection:
        fail_writes(connection, [state] * 1000)
        with pytest.raises(StoreUnavailableError, match="repeatedly"):
            adapter.increment("namespace", "key")
        assert connection.execute("SELECT last_value < 10 FROM failures").fetchone() == (True,)
    assert adapter.get("namespace", "key").value == 1


def test_a_refusal_after_a_lost_connection_does_not_say_that_nothing_was_done(
    adapter: KeyValueStoreAdapter, postgres_url: str
) -> None:
    with bare_connection(postgres_url) as connection:
        fail_writes(connection, ["57P01", "42501"])
        with pytest.raises(StoreUnavailableError, match=r"lost, and then .*config/grants\.sql"):
            adapter.increment("namespace", "key", operation_id="operation")


def fail_writes(connection: psycopg.Connection[Any], states: list[str]) -> None:
    """Fail one write after the other with these SQLSTATEs. A rollback does not reset the sequence that counts them."""
    connection.execute("CREATE SEQUENCE failures")
    connection.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('failures') <= {len(states)} THEN RAISE EXCEPTION 'undone'"
        f" USING ERRCODE = (ARRAY{states})[currval('failures')]; END IF; RETURN NEW; END $$"
    )
    connection.execute("CREATE TRIGGER fail BEFORE UPDATE ON kv_entries FOR EACH ROW EXECUTE FUNCTION fail()")


def test_an_exhausted_pool_is_an_error(postgres_url: str) -> None:
    pool = {"size": 1, "max_overflow": 0, "timeout": 0.2}
    with make_adapter(postgres_url, pool=pool) as adapter, ThreadPoolExecutor(1) as thread:
        adapter.set("namespace", "key", 1)
        with bare_connection(postgres_url) as connection, connection.transaction():
            connection.execute("SELECT FROM kv_entries FOR UPDATE")
            waiting = thread.submit(adapter.increment, "namespace", "key")
            eventually(lambda: _waits_for_a_lock(postgres_url))
            with pytest.raises(StoreUnavailableError, match=r"pool\.size"):
                adapter.get("namespace", "key")
        assert waiting.result(timeout=10).value == 2


def _waits_for_a_lock(url: str) -> bool:
    with bare_connection(url) as connection:
        query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        return connection.execute(query).fetchone() is not None


def test_a_read_only_database_is_an_error(adapter: KeyValueStoreAdapter, postgres_url: str) -> None:
    with bare_connection(postgres_url) as connection:
        connection.execute(f'ALTER DATABASE "{connection.info.dbname}" SET default_transaction_read_only = on')
    with make_adapter(postgres_url) as another:
        with pytest.raises(StoreUnavailableError, match="read-only"):
            another.set("namespace", "key", 2)
        assert another.get("namespace", "key").value == 1


def test_too_many_connections_are_an_error(postgres_url: str) -> None:
    with bare_connection(postgres_url) as connection:
        connection.execute("CREATE ROLE lonely LOGIN CONNECTION LIMIT 0")
        try:
            url = make_url(postgres_url).set(username="lonely").render_as_string()
            with make_adapter(url) as adapter, pytest.raises(StoreUnavailableError, match="too many connections"):
                adapter.get("namespace", "key")
        finally:
            connection.execute("DROP ROLE lonely")


def test_missing_privileges_are_reported(postgres_url: str) -> None:
    with bare_connection(postgres_url) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
        try:
            url = make_url(postgres_url).set(username="guest").render_as_string()
            with make_adapter(url) as adapter, pytest.raises(ConfigurationError, match="may not do this"):
                adapter.get("namespace", "key")
        finally:
            connection.execute("DROP ROLE guest")


def test_the_adapter_works_without_prepared_statements(postgres_url: str) -> None:
    with make_adapter(postgres_url, prepare_threshold=None) as adapter:
        assert isinstance(adapter, SqlAdapter)
        for number in range(10):
            assert adapter.increment("namespace", "key").value == number + 1
            assert None not in adapter.apply_many(
                [make_operation("set", "key", value=number), make_operation("get", "key")]
            )
        prepared = adapter._executor.run(
            lambda connection: connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        )
        assert prepared == (0,)
