"""Connections to Redis: how long one is trusted, and how long a read may take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from kvworker import Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.redis_connections import RedisConnectionPool, connect, timed_out
from tests.support.elapsed import finishes_within
from tests.support.processes import ValkeyNode, running


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ValkeyNode]:
    with running(ValkeyNode(tmp_path)) as node:
        yield node


@pytest.fixture
def app(node: ValkeyNode) -> Celery:
    return make_celery(Settings.from_mapping({"queue": {"broker_url": node.url}}))


def test_a_connection_idle_for_long_is_checked_before_it_is_used(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    source = app.backend.client.connection_pool
    pool = RedisConnectionPool(lambda: source.connection_class(**source.connection_kwargs), max_idle=2)
    link = pool.acquire()
    pool.give_back(link)
    assert pool.acquire_ready() is link
    pool.give_back(link)
    monkeypatch.setattr("kvworker.messaging.redis_connections.TRUSTED_IDLE_SECONDS", 0.0)
    assert pool.acquire_ready() is None
    assert pool.acquire() is link
    pool.close()


def test_the_kernel_ends_a_read_that_takes_too_long(app: Celery, node: ValkeyNode) -> None:
    pool = app.backend.client.connection_pool
    link = pool.connection_class(**{**pool.connection_kwargs, "socket_timeout": 0.3})
    connect(link)
    node.kill("SIGSTOP")
    try:
        started = time.monotonic()
        link.send_command("PING", check_health=False)
        with finishes_within(1.0), pytest.raises(Exception, match="reading") as caught:
            link.read_response()
        assert time.monotonic() - started > 0.2
        assert timed_out(caught.value)
    finally:
        node.kill("SIGCONT")
