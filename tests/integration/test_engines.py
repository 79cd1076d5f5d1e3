"""An adapter's connections: whose they are, in which process, and in which state they go back."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter, use_conversation_engine
from kvworker.errors import ConfigurationError
from kvworker.testing import eventually


@pytest.fixture(params=["postgres", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{kind}_url"))


@pytest.fixture
def host_engine(kind: str, url: str) -> Iterator[Engine]:
    with create_kv_store_adapter(kind, {"url": url}) as adapter:
        adapter.migrate()
    engine = create_engine(url, pool_size=1, max_overflow=0)
    use_conversation_engine(engine)
    yield engine
    use_conversation_engine(None)
    engine.dispose()


def _increment_in_child(adapter: KeyValueStoreAdapter, times: int) -> None:
    for _ in range(times):
        adapter.increment("namespace", "key")


def _run_forked(adapter: KeyValueStoreAdapter) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_increment_in_child, args=(adapter, 20)) for _ in range(3)]
    for child in children:
        child.start()
    _increment_in_child(adapter, 20)
    for child in children:
        child.join(60)
        assert child.exitcode == 0


def test_an_adapter_made_before_a_fork_works_on_both_sides(kind: str, url: str) -> None:
    config: dict[str, Any] = {"url": url, "migrate_on_start": True}
    with create_kv_store_adapter(kind, config) as adapter:
        adapter.increment("namespace", "key")
        _run_forked(adapter)
        assert adapter.get("namespace", "key").value == 81


def test_a_process_may_fork_while_its_threads_write(kind: str, url: str) -> None:
    stop, written = threading.Event(), []

    def write() -> None:
        # The pause is as long as the write. SQLite's lock is not fair: with a short one, and a slow disk, a child that
        # looks for the lock every 100 ms could find it taken for a minute.
        seconds = 0.0
        while not stop.wait(seconds):
            started = time.monotonic()
            written.append(adapter.increment("namespace", "key").value)
            seconds = time.monotonic() - started

    config: dict[str, Any] = {"url": url, "migrate_on_start": True}
    if kind == "sqlite":
        config["busy_timeout_seconds"] = 60
    with create_kv_store_adapter(kind, config) as adapter, ThreadPoolExecutor(2) as threads:
        writers = [threads.submit(write) for _ in range(2)]
        context = multiprocessing.get_context("fork")
        try:
            eventually(lambda: len(written) > 10)
            for _ in range(5):
                child = context.Process(target=_increment_in_child, args=(adapter, 1))
                child.start()
                child.join(60)
                assert child.exitcode == 0
        finally:
            stop.set()
        for writer in writers:
            writer.result(timeout=60)
        assert adapter.get("namespace", "key").value == len(written) + 5


def test_a_database_in_memory_is_still_there_after_a_fork() -> None:
    with create_kv_store_adapter("sqlite", {"url": "sqlite://"}) as adapter:
        adapter.set("namespace", "key", 1)
        child = multiprocessing.get_context("fork").Process(target=adapter.get, args=("namespace", "key"))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert adapter.get("namespace", "key").value == 1


def test_a_host_engine_works_on_both_sides_of_a_fork(kind: str, host_engine: Engine) -> None:
    with create_kv_store_adapter(kind, {"reuse_conversation_store": True}) as adapter:
        adapter.increment("namespace", "key")
        _run_forked(adapter)
        assert adapter.get("namespace", "key").value == 81


def test_a_host_engine_is_used_and_its_connections_go_back_unchanged(kind: str, host_engine: Engine) -> None:
    with create_kv_store_adapter(kind, {"reuse_conversation_store": True}) as adapter:
        adapter.set("namespace", "key", 1)
        adapter.sweep_expired()
        adapter.recompute_ledgers()
    # There is one connection. It must not have stayed in autocommit, or the rollback would have no effect.
    with host_engine.connect() as connection:
        connection.execute(text("DELETE FROM kv_entries"))
        connection.rollback()
        assert connection.execute(text("SELECT count(*) FROM kv_entries")).scalar_one() == 1


def test_without_a_url_the_host_engine_is_used_unless_told_otherwise(kind: str, host_engine: Engine) -> None:
    with create_kv_store_adapter(kind, {}) as adapter:
        adapter.set("namespace", "key", 1)
    with pytest.raises(ConfigurationError, match="reuse_conversation_store"):
        create_kv_store_adapter(kind, {"reuse_conversation_store": False})


def test_a_url_has_priority_over_the_host_engine(kind: str, host_engine: Engine, tmp_path: Any) -> None:
    config = {"url": f"sqlite:///{tmp_path}/own.sqlite", "migrate_on_start": True, "reuse_conversation_store": True}
    with create_kv_store_adapter("sqlite", config) as adapter:
        adapter.set("namespace", "key", 1)
    with create_kv_store_adapter(kind, {}) as adapter:
        assert not adapter.get("namespace", "key").found


def test_a_missing_host_engine_says_what_to_do(kind: str) -> None:
    adapter = create_kv_store_adapter(kind, {"reuse_conversation_store": True})
    with pytest.raises(ConfigurationError, match="use_conversation_engine"):
        adapter.get("namespace", "key")


def test_a_host_engine_of_another_database_is_refused(kind: str, host_engine: Engine) -> None:
    other = "sqlite" if kind == "postgres" else "postgres"
    adapter = create_kv_store_adapter(other, {"reuse_conversation_store": True})
    with pytest.raises(ConfigurationError, match=r"this adapter needs"):
        adapter.get("namespace", "key")
