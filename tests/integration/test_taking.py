"""A worker takes a message and records it in one step, so that its death in between loses none."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Queue
from redis import Redis

from kvworker.worker.taking import WorkerConnection
from tests.support.processes import wait_until

SEPARATOR = "\x06\x16"


@pytest.fixture
def client(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url, decode_responses=True) as client:
        yield client


class Consumer:
    """A consumer of the queues ``kv`` and ``other``, which keeps the messages that it receives."""

    def __init__(self, url: str, prefix: str = "") -> None:
        options = {"global_keyprefix": prefix, "max_message_bytes": 100_000, "priority_steps": [0, 5]}
        self.connection = WorkerConnection(url, transport_options=options)
        self.channel = self.connection.channel()
        self.received: list[Any] = []
        for name in ("kv", "other"):
            Queue(name)(self.channel).declare()
            self.channel.basic_consume(name, no_ack=False, callback=self.received.append, consumer_tag=name)

    def publish(self, *bodies: str, queue: str = "kv", priority: int = 0) -> None:
        """Publish a message for each body."""
        for body in bodies:
            message = self.channel.prepare_message(body, priority=priority, content_type="text/plain")
            self.channel.basic_publish(message, "", queue)

    def receive(self, count: int) -> list[str]:
        """Receive so many messages, and return the bodies of all that were received so far."""

        def has_all() -> bool:
            if len(self.received) < count:
                self.connection.drain_events(timeout=10)
            return len(self.received) >= count

        wait_until(has_all, what=f"{count} messages")
        return [message.payload for message in self.received]


@pytest.fixture(params=["", "p:"], ids=["no prefix", "a prefix"])
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def consumer(valkey_url: str, prefix: str) -> Iterator[Consumer]:
    consumer = Consumer(valkey_url, prefix)
    yield consumer
    consumer.connection.close()


def commands(client: Redis, name: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{name}", {}).get("calls", 0))


def test_a_backlog_arrives_and_is_taken_in_one_step_each(consumer: Consumer, client: Redis, prefix: str) -> None:
    consumer.publish(*(f"body {number}" for number in range(20)))
    consumer.publish("of another queue", queue="other")
    before = commands(client, "brpop")
    bodies = consumer.receive(21)
    assert sorted(bodies) == sorted([*(f"body {number}" for number in range(20)), "of another queue"])
    assert [body for body in bodies if body.startswith("body")] == [f"body {number}" for number in range(20)]
    assert commands(client, "brpop") == before, "no message was handed out singly"
    consumer.channel.qos._pipelined.read()
    tags = {message.delivery_tag for message in consumer.received}
    assert set(client.hkeys(f"{prefix}unacked")) == set(client.zrange(f"{prefix}unacked_index", 0, -1)) == tags
    index = f"{prefix}unacked_index"
    assert all(abs(time.time() - float(client.zscore(index, tag) or 0)) < 60 for tag in tags)
    for message in consumer.received:
        message.ack()
    consumer.channel.qos._pipelined.read()
    assert client.hlen(f"{prefix}unacked") == client.zcard(f"{prefix}unacked_index") == 0


def test_a_worker_that_dies_before_it_reads_the_answer_loses_nothing(
    consumer: Consumer, client: Redis, prefix: str, valkey_url: str
) -> None:
    consumer.publish("first", "second", "urgent")
    consumer.publish("low", priority=5)
    consumer.receive(1)
    consumer.channel._brpop_start()
    wait_until(lambda: client.hlen(f"{prefix}unacked") == 2, what="the record of the second message")
    consumer.channel.client.connection.disconnect()
    (tag,) = set(client.hkeys(f"{prefix}unacked")) - {message.delivery_tag for message in consumer.received}
    assert client.llen(f"{prefix}kv") == 1
    other = Consumer(valkey_url, prefix)
    other.channel.qos.restore_by_tag(tag)
    assert sorted(other.receive(3)) == ["low", "second", "urgent"]
    (restored,) = (message for message in other.received if message.payload == "second")
    assert restored.delivery_info["redelivered"]
    other.connection.close()


def test_a_message_that_was_put_back_is_taken_in_one_step(consumer: Consumer, client: Redis) -> None:
    for number in range(3):  # one by one, so that the script finds none in between
        consumer.publish(f"body {number}")
        consumer.receive(number + 1)
        with pytest.raises(socket.timeout):
            consumer.connection.drain_events(timeout=0.1)
    consumer.publish("poison")
    consumer.receive(4)
    before = commands(client, "brpop")
    for count in range(5, 10):
        consumer.received[-1].requeue()
        assert consumer.receive(count)[-1] == "poison"
    assert commands(client, "brpop") == before


@pytest.mark.parametrize(
    "item",
    [
        "{not json",
        '{"delivery_tag": "stray"}',
        '["delivery_tag", 1]',
        '{"delivery_tag": "stray", "body": "", "properties": {"delivery_tag": 5}}',
        "x" * 100_001,
        '"delivery_tag": "long"' + "x" * 100_000,
    ],
)
def test_an_item_that_is_dropped_leaves_no_record(
    consumer: Consumer, client: Redis, prefix: str, item: str, caplog: pytest.LogCaptureFixture
) -> None:
    consumer.publish("first")
    consumer.receive(1)
    client.lpush(f"{prefix}kv", item)
    consumer.publish("last")
    with caplog.at_level(logging.ERROR):
        assert consumer.receive(2) == ["first", "last"]
    assert "is dropped from" in caplog.text
    consumer.channel.qos._pipelined.read()
    tags = {message.delivery_tag for message in consumer.received}
    assert set(client.hkeys(f"{prefix}unacked")) == set(client.zrange(f"{prefix}unacked_index", 0, -1)) == tags


def test_a_tag_in_a_header_is_not_taken_for_the_messages_own(consumer: Consumer, client: Redis, prefix: str) -> None:
    message = consumer.channel.prepare_message("odd", content_type="text/plain", headers={"delivery_tag": "stray"})
    consumer.publish("first")
    consumer.receive(1)
    consumer.channel.basic_publish(message, "", "kv")
    assert consumer.receive(2) == ["first", "odd"]
    consumer.channel.qos._pipelined.read()
    tags = {message.delivery_tag for message in consumer.received}
    assert set(client.hkeys(f"{prefix}unacked")) == tags
    record = json.loads(client.hget(f"{prefix}unacked", consumer.received[1].delivery_tag) or "")
    assert record[0]["headers"] == {"delivery_tag": "stray"}


@pytest.mark.parametrize("refusal", ["no right", "full memory"])
def test_a_server_that_refuses_the_script_still_hands_out_messages(
    valkey_url: str, client: Redis, refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = Consumer(valkey_url)
    consumer.publish("first")
    consumer.receive(1)
    consumer.publish("second", "third")
    try:
        if refusal == "no right":
            client.acl_setuser("default", enabled=True, commands=["-eval"], reset=False)
        else:
            client.config_set("maxmemory", 1)
        with caplog.at_level(logging.WARNING):
            assert consumer.receive(3) == ["first", "second", "third"]
    finally:
        client.acl_setuser("default", enabled=True, commands=["+eval"], reset=False)
        client.config_set("maxmemory", 0)
    assert caplog.text.count("refuses to take and record") == 1
    consumer.connection.close()
