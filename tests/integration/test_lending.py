"""Connections that are kept count: the pool's limits hold, and nobody waits for one that is idle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from kvworker.adapters.sql.connection_cache import Lender
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


def test_a_connection_that_came_back_is_lent_again(engine: Engine) -> None:
    lender = Lender(engine)
    first = lender.borrow()
    lender.take_back(first)
    assert lender.lend_idle() is first
    assert lender.lend_idle() is None
    lender.take_back(first)
    assert lender.borrow() is first


def test_the_pools_limit_and_timeout_hold(engine: Engine) -> None:
    lender = Lender(engine)
    both = [lender.borrow(), lender.borrow()]
    with pytest.raises(PoolTimeoutError):
        lender.borrow()
    for connection in both:
        lender.take_back(connection)
    # What is beyond the pool's size does not stay.
    assert checked_out(engine) == 1


def test_who_waits_at_the_pool_gets_what_comes_back(engine: Engine) -> None:
    lender = Lender(engine)
    both = [lender.borrow(), lender.borrow()]
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(lender.borrow)
        eventually(lambda: lender._asking == 1)
        lender.take_back(both[0])
        assert waiting.result(timeout=5) is not None


def test_idle_connections_can_be_given_back(engine: Engine) -> None:
    lender = Lender(engine)
    lender.take_back(lender.borrow())
    lender.give_back()
    assert checked_out(engine) == 0
    assert lender.lend_idle() is None


def test_threads_share_few_connections(engine: Engine) -> None:
    lender, most, lock = Lender(engine), [0], threading.Lock()

    def work(_: int) -> None:
        connection = lender.lend_idle() or lender.borrow()
        with lock:
            most[0] = max(most[0], checked_out(engine))
        lender.take_back(connection)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(500)))
    assert most[0] <= 2
