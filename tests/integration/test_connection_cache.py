"""The cache's connections count for the pool: its limits hold, and no thread waits while a connection is idle."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from kvworker.adapters.sql.connection_cache import ConnectionCache
from kvworker.testing import eventually


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'kv.sqlite'}"
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=1,
        pool_timeout=0.5,
        connect_args={"check_same_thread": False},
    )
    yield engine
    engine.dispose()


def checked_out(engine: Engine) -> int:
    assert isinstance(engine.pool, QueuePool)
    return engine.pool.checkedout()


def test_a_returned_connection_is_lent_again(engine: Engine) -> None:
    cache = ConnectionCache(engine)
    first = cache.borrow()
    cache.give_back(first)
    assert cache.borrow_idle() is first
    assert cache.borrow_idle() is None
    cache.give_back(first)
    assert cache.borrow() is first


def test_the_pools_limit_and_timeout_hold(engine: Engine) -> None:
    cache = ConnectionCache(engine)
    both = [cache.borrow(), cache.borrow()]
    with pytest.raises(PoolTimeoutError):
        cache.borrow()
    for connection in both:
        cache.give_back(connection)
    # A connection beyond the pool's size is not kept.
    assert checked_out(engine) == 1


def test_a_thread_that_waits_at_the_pool_gets_a_returned_connection(engine: Engine) -> None:
    cache = ConnectionCache(engine)
    both = [cache.borrow(), cache.borrow()]
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(cache.borrow)
        eventually(lambda: cache._waiting == 1)
        cache.give_back(both[0])
        assert waiting.result(timeout=5) is not None


def test_idle_connections_can_be_returned_to_the_pool(engine: Engine) -> None:
    cache = ConnectionCache(engine)
    cache.give_back(cache.borrow())
    cache.release_idle()
    assert checked_out(engine) == 0
    assert cache.borrow_idle() is None


def test_threads_share_few_connections(engine: Engine) -> None:
    cache, most, lock = ConnectionCache(engine), [0], threading.Lock()

    def work(_: int) -> None:
        connection = cache.borrow_idle() or cache.borrow()
        with lock:
            most[0] = max(most[0], checked_out(engine))
        cache.give_back(connection)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(500)))
    assert most[0] <= 2


def test_a_connection_of_a_disposed_pool_is_closed(engine: Engine) -> None:
    """A thread that loses its connection disposes of the pool, while other threads use connections of it."""
    cache = ConnectionCache(engine)
    kept, beyond_size = cache.borrow(), cache.borrow()
    drivers = [kept.driver_connection, beyond_size.driver_connection]
    engine.dispose()
    cache.give_back(kept)
    cache.give_back(beyond_size)
    cache.release_idle()
    for driver in drivers:
        assert isinstance(driver, sqlite3.Connection)
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            driver.execute("SELECT 1")
