"""A PostgreSQL that is frozen, or that the network has cut off silently, holds no caller longer than the bound."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter, use_conversation_engine
from kvworker.errors import StoreUnavailableError
from kvworker.model import Step
from kvworker.testing import eventually
from kvworker.testing.apply_many import make_operation
from tests.support.elapsed import finishes_within
from tests.support.servers import PostgresServer, running_postgres
from tests.support.silent_proxy import SilentProxy, silent_proxy

#: A statement may take a second longer on our side, and an operation is tried twice.
TIMEOUT_SECONDS = 1.0
BOUND_SECONDS = 10.0


@pytest.fixture
def proxy(postgres_server: PostgresServer) -> Iterator[SilentProxy]:
    with silent_proxy(f"{postgres_server.socket_directory}/.s.PGSQL.5432") as proxy:
        yield proxy


@pytest.fixture
def url(postgres_url: str, proxy: SilentProxy) -> str:
    return f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/{make_url(postgres_url).database}?sslmode=disable"


@pytest.fixture
def adapter(url: str) -> Iterator[KeyValueStoreAdapter]:
    config = {"url": url, "statement_timeout_seconds": TIMEOUT_SECONDS}
    with create_kv_store_adapter("postgres", config) as adapter:
        adapter.set("n", "k", 1)
        yield adapter


def test_a_frozen_server_is_an_error_and_the_operation_can_be_repeated(tmp_path: Any) -> None:
    with running_postgres() as server:
        url = f"{server.url(server.create_database())}&connect_timeout=2"
        config = {"url": url, "statement_timeout_seconds": TIMEOUT_SECONDS}
        with create_kv_store_adapter("postgres", config) as adapter:
            adapter.set("n", "k", 1)
            server.freeze()
            try:
                with finishes_within(BOUND_SECONDS), pytest.raises(StoreUnavailableError, match="timeout expired"):
                    adapter.increment("n", "k", operation_id="once")
            finally:
                server.resume()
            assert adapter.increment("n", "k", operation_id="once").value == 2
            assert adapter.increment("n", "k", operation_id="once").replayed


@pytest.mark.parametrize("kind", ["plain", "batch", "many", "read"])
def test_a_silent_network_fails_no_operation(adapter: KeyValueStoreAdapter, proxy: SilentProxy, kind: str) -> None:
    adapter.apply_many([make_operation("set", "other", value=1)])
    proxy.silence()
    with finishes_within(BOUND_SECONDS):
        if kind == "plain":
            assert adapter.increment("n", "k").value == 2
        elif kind == "batch":
            steps = (Step("increment", "k", delta=1), Step("increment", "l", delta=1))
            assert [getattr(result, "value", None) for result in adapter.batch("n", steps).results] == [2, 1]
        elif kind == "many":
            assert adapter.apply_many([make_operation("increment", "k", namespace="n")]) != [None]
        else:
            assert adapter.get("n", "k").value == 1
    with finishes_within(TIMEOUT_SECONDS):
        adapter.get("n", "k")


def test_a_host_engine_is_bounded_and_goes_back_unchanged(url: str, proxy: SilentProxy) -> None:
    engine = create_engine(url, pool_size=1)
    use_conversation_engine(engine)
    config = {"reuse_conversation_store": True, "statement_timeout_seconds": TIMEOUT_SECONDS}
    try:
        with create_kv_store_adapter("postgres", config) as adapter:
            adapter.set("n", "k", 1)
            with engine.connect() as connection:
                assert "wait" not in vars(connection.connection.driver_connection)
            proxy.silence()
            with finishes_within(BOUND_SECONDS):
                assert adapter.increment("n", "k").value == 2
    finally:
        use_conversation_engine(None)
        engine.dispose()


def test_a_migration_may_wait_for_longer(adapter: KeyValueStoreAdapter, connection: psycopg.Connection[Any]) -> None:
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
        " AND clock_timestamp() - query_start > make_interval(secs => %s)"
    )
    longer_than_a_statement = (TIMEOUT_SECONDS + 1.5,)
    with ThreadPoolExecutor(1) as threads:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(118156554105451)")
            migrating = threads.submit(adapter.migrate)
            eventually(
                lambda: migrating.done() or connection.execute(waits, longer_than_a_statement).fetchone() == (1,)
            )
            assert not migrating.done()
        migrating.result(timeout=60)
