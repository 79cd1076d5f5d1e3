"""The depth of queues and the age of their oldest message, read without taking one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from kvworker import KeyValueStore, Settings
from kvworker.errors import OperationTimeoutError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.wire import WAITING
from kvworker.ops.overview.queues import QueueState, read_queues

SEPARATOR = "\x06\x16"


@pytest.fixture
def settings(valkey_url: str) -> Settings:
    queue = {"broker_url": valkey_url, "result_backend": valkey_url}
    return Settings.from_mapping({"queue": queue}, environ={})


@pytest.fixture
def client(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url, decode_responses=True) as client:
        yield client


def item(**header: Any) -> str:
    """A message as kombu stores it, as far as it matters."""
    delivery = {"exchange": "", "routing_key": "kv"}
    properties = {"delivery_tag": "t", "delivery_info": delivery, "body_encoding": "base64"}
    return json.dumps({"body": "W10=", "headers": {WAITING: header} if header else {}, "properties": properties})


def test_empty_queues_have_no_age(settings: Settings) -> None:
    state = read_queues(settings)
    assert state.queues == (QueueState("kv", 0), QueueState("kv.maintenance", 0))
    assert (state.unacknowledged, state.oldest_unacknowledged_seconds) == (0, None)


def test_a_call_and_a_task_tell_how_long_they_have_waited(settings: Settings, client: Redis) -> None:
    with KeyValueStore(settings) as store, pytest.raises(OperationTimeoutError):
        store.get("n", "k", timeout=0.5)
    make_celery(settings).send_task("kvworker.sweep_expired", queue="kv.maintenance")
    time.sleep(0.05)
    before = client.lrange("kv", 0, -1)
    operations, maintenance = read_queues(settings).queues
    assert (operations.depth, maintenance.depth) == (1, 1)
    assert operations.oldest_seconds is not None
    assert maintenance.oldest_seconds is not None
    assert 0.5 <= operations.oldest_seconds < 60
    assert 0.05 <= maintenance.oldest_seconds < 60
    assert client.lrange("kv", 0, -1) == before


def test_the_oldest_message_of_all_priorities_counts(settings: Settings, client: Redis) -> None:
    now = time.time()
    client.lpush("kv", item(sent=now - 100), item(sent=now - 10))
    client.lpush(f"kv{SEPARATOR}3", item(deadline=now - 190, half_time=now - 195), item(sent=now - 500))
    (state, _) = read_queues(settings).queues
    assert state.depth == 4
    assert state.oldest_seconds == pytest.approx(200, abs=30)


HOSTILE = (
    "not json",
    "[" * 5000,
    "{}",
    item(sent=None),
    item(sent=True),
    item(sent="1"),
    item(sent=-5),
    item(sent=10**400),
    item(deadline=1, half_time=[]),
    item(deadline=float("nan"), half_time=float("nan")),
    json.dumps({"body": "", "headers": {WAITING: 3}, "properties": {}}),
)


def test_messages_that_tell_nothing_are_passed_over(settings: Settings, client: Redis) -> None:
    client.lpush("kv", *HOSTILE)
    (state, _) = read_queues(settings).queues
    assert (state.depth, state.oldest_seconds) == (len(HOSTILE), None)
    client.lpush("kv", item(sent=time.time() - 50), item(sent=time.time() - 10))
    (state, _) = read_queues(settings).queues
    assert state.oldest_seconds == pytest.approx(50, abs=30)
    # A clock that is ahead makes no negative age.
    client.delete("kv")
    client.lpush("kv", item(sent=time.time() + 1000))
    (state, _) = read_queues(settings).queues
    assert state.oldest_seconds == 0


def test_unacknowledged_messages_are_counted_with_the_age_of_the_first(settings: Settings, client: Redis) -> None:
    with make_celery(settings).connection_for_write() as connection:
        channel = connection.default_channel
        messages, index = channel.unacked_key, channel.unacked_index_key
    client.hset(messages, mapping={"a": "1", "b": "2"})
    client.zadd(index, {"a": time.time() - 70, "b": time.time() - 5})
    state = read_queues(settings)
    assert state.unacknowledged == 2
    assert state.oldest_unacknowledged_seconds == pytest.approx(70, abs=30)
