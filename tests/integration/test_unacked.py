"""A worker's record of unacknowledged messages: it equals kombu's, and is written in order."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Queue
from kombu.transport.redis import Mutex, QoS
from redis import Redis

from kvworker import Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.worker.taking import WorkerConnection
from tests.support.processes import wait_until


@pytest.fixture
def client(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture(params=["", "p:"], ids=["no prefix", "a prefix"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def channel(valkey_url: str, prefix: str) -> Iterator[Any]:
    with WorkerConnection(valkey_url, transport_options={"global_keyprefix": prefix}) as connection:
        yield connection.channel()


def receive(channel: Any) -> Any:
    """Publish a message and receive it, as a worker does."""
    queue = Queue("kv")(channel)
    queue.declare()
    channel.basic_publish(channel.prepare_message("body"), "", "kv")
    message = queue.get(no_ack=False)
    assert message is not None
    return message


def records(client: Redis, prefix: str) -> tuple[int, int]:
    return client.hlen(f"{prefix}unacked"), client.zcard(f"{prefix}unacked_index")


def test_a_record_equals_kombus(channel: Any, client: Redis, prefix: str, valkey_url: str) -> None:
    message = receive(channel)
    channel.qos._pipelined.read()
    mine = json.loads(client.hget(f"{prefix}unacked", message.delivery_tag))  # type: ignore[arg-type]
    client.delete(f"{prefix}unacked")
    stock = QoS(channel)
    stock._on_collect.cancel()
    stock.append(message, message.delivery_tag)
    assert json.loads(client.hget(f"{prefix}unacked", message.delivery_tag)) == mine  # type: ignore[arg-type]
    assert records(client, prefix) == (1, 1)


def test_any_thread_can_acknowledge(channel: Any, client: Redis, prefix: str) -> None:
    messages = [receive(channel) for _ in range(20)]
    threads = [threading.Thread(target=message.ack) for message in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    channel.qos._pipelined.read()
    assert records(client, prefix) == (0, 0)


def test_a_refused_message_leaves_no_record(channel: Any, client: Redis, prefix: str) -> None:
    for _ in range(300):
        receive(channel).reject()
    channel.qos._pipelined.read()
    assert records(client, prefix) == (0, 0)
    assert client.llen(f"{prefix}kv") == 0


def test_a_message_that_is_put_back_was_recorded_before(channel: Any, client: Redis, prefix: str) -> None:
    for _ in range(50):
        receive(channel).requeue()
        assert client.llen(f"{prefix}kv") == 1
        client.delete(f"{prefix}kv")
    assert records(client, prefix) == (0, 0)


def test_closing_a_channel_puts_back_unacknowledged_messages(channel: Any, client: Redis, prefix: str) -> None:
    receive(channel)
    receive(channel).ack()
    channel.close()
    assert client.llen(f"{prefix}kv") == 1
    assert records(client, prefix) == (0, 0)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_puts_back_no_messages_too_early(
    channel: Any, client: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    def wrong_time() -> float:
        seconds, microseconds = client.time()
        return seconds + microseconds / 1e6 + hours * 3600

    index = f"{prefix}unacked_index"
    monkeypatch.setattr("kombu.transport.redis.time", wrong_time)
    monkeypatch.setattr("kvworker.messaging.clock.time.time", wrong_time)
    message = receive(channel)
    channel.qos._pipelined.read()
    assert client.zscore(index, message.delivery_tag) == pytest.approx(wrong_time() - hours * 3600, abs=1)
    channel.qos.restore_visible(interval=1)
    assert records(client, prefix) == (1, 1)
    client.zincrby(index, -channel.visibility_timeout - 1, message.delivery_tag)
    channel.qos.restore_visible(interval=1)
    assert records(client, prefix) == (0, 0)
    assert client.llen(f"{prefix}kv") == 1


def test_a_lost_connection_is_replaced(channel: Any, client: Redis, prefix: str) -> None:
    first = receive(channel)
    channel.qos._pipelined.read()
    client.client_kill_filter(_type="normal", skipme=True)
    second = receive(channel)
    channel.qos._pipelined.read()
    assert records(client, prefix) == (2, 2)
    first.ack()
    second.ack()
    channel.qos._pipelined.read()
    assert records(client, prefix) == (0, 0)


def test_a_refusal_is_logged_and_survived(
    channel: Any, client: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = receive(channel)
    client.config_set("maxmemory", "1")
    try:
        channel.qos.append(message, "another tag")
        with caplog.at_level(logging.ERROR):
            channel.qos._pipelined.read()
    finally:
        client.config_set("maxmemory", "0")
    assert "refuses" in caplog.text
    assert "body" not in caplog.text
    message.ack()
    wait_until(lambda: records(client, prefix) == (0, 0), what="the acknowledgement")


def test_a_lock_that_a_killed_worker_left_behind_delays_redelivery_only_for_seconds(
    valkey_url: str, client: Redis
) -> None:
    """kombu's own lock stands for 300 s, in which no worker gets the messages of a lost one."""
    options = make_celery(Settings.from_mapping({"queue": {"broker_url": valkey_url}})).conf.broker_transport_options
    with WorkerConnection(valkey_url, transport_options=options) as connection:
        channel = connection.channel()
        message = receive(channel)
        channel.qos._pipelined.read()
        client.zincrby(channel.unacked_index_key, -channel.visibility_timeout - 1, message.delivery_tag)
        left_behind = Mutex(client, channel.unacked_mutex_key, channel.unacked_mutex_expire)
        left_behind.__enter__()
        channel.qos.restore_visible(interval=1)
        assert client.llen("kv") == 0

        def is_restored() -> bool:
            channel.qos.restore_visible(interval=1)
            return bool(client.llen("kv"))

        wait_until(is_restored, timeout_seconds=30, what="the redelivery")


def test_a_broker_that_dies_within_an_acknowledgement_leaves_only_what_is_deleted_later(
    channel: Any, client: Redis, prefix: str
) -> None:
    """An index entry without a record is found by its age and deleted; a record without an index entry would stay."""
    message = receive(channel)
    channel.qos._pipelined.read()
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]
        message.ack()
        channel.qos._pipelined.read()
        commands = [monitor.next_command()["command"].split()[0] for _ in range(2)]
    assert commands == ["HDEL", "ZREM"]
    client.zadd(f"{prefix}unacked_index", {message.delivery_tag: 1})
    channel.qos.restore_visible(interval=1)
    assert records(client, prefix) == (0, 0)
    assert client.llen(f"{prefix}kv") == 0
