"""What a worker notes of the messages that it has taken: the same as kombu's, in the order in which it is written."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Queue
from kombu.transport.redis import QoS
from redis import Redis

from kvworker.worker.celery_worker import WorkerConnection
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


def take(channel: Any) -> Any:
    """Publish a message and take it, as a worker does."""
    queue = Queue("kv")(channel)
    queue.declare()
    channel.basic_publish(channel.prepare_message("body"), "", "kv")
    message = queue.get(no_ack=False)
    assert message is not None
    return message


def notes(client: Redis, prefix: str) -> tuple[int, int]:
    return client.hlen(f"{prefix}unacked"), client.zcard(f"{prefix}unacked_index")


def test_a_note_is_kombus(channel: Any, client: Redis, prefix: str, valkey_url: str) -> None:
    message = take(channel)
    channel.qos._pipelined.read()
    mine = json.loads(client.hget(f"{prefix}unacked", message.delivery_tag))  # type: ignore[arg-type]
    client.delete(f"{prefix}unacked")
    stock = QoS(channel)
    stock._on_collect.cancel()
    stock.append(message, message.delivery_tag)
    assert json.loads(client.hget(f"{prefix}unacked", message.delivery_tag)) == mine  # type: ignore[arg-type]
    assert notes(client, prefix) == (1, 1)


def test_acknowledging_strikes_it_out_from_any_thread(channel: Any, client: Redis, prefix: str) -> None:
    messages = [take(channel) for _ in range(20)]
    threads = [threading.Thread(target=message.ack) for message in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    channel.qos._pipelined.read()
    assert notes(client, prefix) == (0, 0)


def test_what_is_put_back_was_noted_before(channel: Any, client: Redis, prefix: str) -> None:
    for _ in range(50):
        take(channel).requeue()
        assert client.llen(f"{prefix}kv") == 1
        client.delete(f"{prefix}kv")
    assert notes(client, prefix) == (0, 0)


def test_the_end_of_a_channel_puts_back_what_is_not_acknowledged(channel: Any, client: Redis, prefix: str) -> None:
    take(channel)
    take(channel).ack()
    channel.close()
    assert client.llen(f"{prefix}kv") == 1
    assert notes(client, prefix) == (0, 0)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_puts_back_neither_its_own_messages_nor_anothers(
    channel: Any, client: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    def wrong_time() -> float:
        seconds, microseconds = client.time()
        return seconds + microseconds / 1e6 + hours * 3600

    index = f"{prefix}unacked_index"
    monkeypatch.setattr("kombu.transport.redis.time", wrong_time)
    monkeypatch.setattr("kvworker.messaging.clock.time.time", wrong_time)
    message = take(channel)
    channel.qos._pipelined.read()
    assert client.zscore(index, message.delivery_tag) == pytest.approx(wrong_time() - hours * 3600, abs=1)
    channel.qos.restore_visible(interval=1)
    assert notes(client, prefix) == (1, 1)
    client.zincrby(index, -channel.visibility_timeout - 1, message.delivery_tag)
    channel.qos.restore_visible(interval=1)
    assert notes(client, prefix) == (0, 0)
    assert client.llen(f"{prefix}kv") == 1


def test_a_lost_connection_is_replaced(channel: Any, client: Redis, prefix: str) -> None:
    first = take(channel)
    channel.qos._pipelined.read()
    client.client_kill_filter(_type="normal", skipme=True)
    second = take(channel)
    channel.qos._pipelined.read()
    assert notes(client, prefix) == (2, 2)
    first.ack()
    second.ack()
    channel.qos._pipelined.read()
    assert notes(client, prefix) == (0, 0)


def test_a_refusal_ends_nothing_and_is_logged(
    channel: Any, client: Redis, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = take(channel)
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
    wait_until(lambda: notes(client, prefix) == (0, 0), what="the acknowledgement")
