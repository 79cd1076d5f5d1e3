"""Hostile bytes on the broker stop no reader of it: of queues, channels, records or results."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from celery import Celery, states
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Consumer, Exchange, Queue
from redis import Redis

from kvworker import KVStoreError, Settings
from kvworker.client.pending_reply import PendingReply
from kvworker.client.transport.message import Message
from kvworker.client.transport.replies import ReplyReader
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.clock import ServerClock
from kvworker.tools import TOOLS
from kvworker.worker.taking import WorkerConnection
from tests.support.hostile import SOUND, items, json_values
from tests.support.processes import wait_until

LIMIT = 200_000
few = settings(max_examples=150)


@pytest.fixture
def client(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def app(valkey_url: str) -> Celery:
    return make_celery(Settings.from_mapping({"queue": {"broker_url": valkey_url}}))


@pytest.fixture
def channel(valkey_url: str) -> Iterator[Any]:
    with WorkerConnection(valkey_url, transport_options={"max_message_bytes": LIMIT}) as connection:
        yield connection.channel()


@contextlib.contextmanager
def consuming(channel: Any, queue: Queue) -> Iterator[list[Any]]:
    """Consume a queue, and give the list that sound messages are added to. The others are settled unread."""
    messages: list[Any] = []

    def take(message: Any, _: object = None) -> None:
        """Acknowledge the message, if it has a record."""
        if queue.name == "kv":
            message.ack()

    def keep(message: Any) -> None:
        """Take the message, and keep it."""
        take(message)
        messages.append(message)

    with Consumer(channel, [queue], no_ack=queue.name != "kv", accept=["json"], on_message=keep, on_decode_error=take):
        yield messages


def wait_for_sound(channel: Any, messages: list[Any]) -> None:
    """Receive until the sound message has arrived."""

    def has_arrived() -> bool:
        with contextlib.suppress(socket.timeout):
            channel.connection.client.drain_events(timeout=1.0)
        return any(message.headers.get("id") == "sound" for message in messages)

    wait_until(has_arrived, what="the sound message")
    messages.clear()


def sound(routing_key: str = "kv") -> bytes:
    address = {**SOUND["properties"]["delivery_info"], "routing_key": routing_key}
    properties = {**SOUND["properties"], "delivery_tag": "sound", "delivery_info": address}
    return json.dumps({**SOUND, "headers": {"id": "sound"}, "properties": properties}).encode()


def test_no_item_of_a_queue_stops_its_consumer(channel: Any, client: Redis) -> None:
    with consuming(channel, Queue("kv")) as messages:

        @few
        @given(items)
        def check(item: bytes) -> None:
            client.lpush("kv", item)
            client.lpush("kv", sound())
            wait_for_sound(channel, messages)
            channel.qos._pipelined.read()
            assert (client.llen("kv"), client.hlen("unacked")) == (0, 0)

        check()


def test_no_published_message_stops_its_consumer(channel: Any, client: Redis, valkey_url: str) -> None:
    topic = f"/{valkey_url.rpartition('/')[2]}.celery.pidbox"
    with consuming(channel, Queue("listener", Exchange("celery.pidbox", type="fanout"))) as messages:
        channel.connection.cycle.on_poll_start()

        @few
        @given(items)
        def check(item: bytes) -> None:
            wait_until(lambda: client.publish(topic, item), what="the subscription")
            client.publish(topic, sound(""))
            wait_for_sound(channel, messages)

        check()


def test_no_record_stops_the_others_from_being_restored(channel: Any, client: Redis) -> None:
    @few
    @given(items | json_values.map(lambda value: json.dumps([value, "", "kv"]).encode()))
    def check(record: bytes) -> None:
        client.hset("unacked", mapping={"a": record, "z": b"[" + sound() + b', "", "kv"]'})
        client.zadd("unacked_index", {"a": 1, "z": 2})
        channel.qos.restore_visible(interval=1)
        assert (client.hlen("unacked"), client.zcard("unacked_index")) == (0, 0)
        assert any(b'"sound"' in item for item in client.lrange("kv", 0, -1))
        client.delete("kv")

    check()


class Waiter:
    def __init__(self) -> None:
        self.future: Future[Any] = Future()


@pytest.fixture
def reader(app: Celery) -> Iterator[ReplyReader[Waiter]]:
    reconnected: list[Any] = []
    clock = ServerClock(app.backend.server_time)
    reader: ReplyReader[Waiter] = ReplyReader(app.backend, "prefix", reconnected.extend, lambda _: None, clock)
    yield reader
    reader.close()
    assert not reconnected, "a hostile result made the reader connect again"


_metas = st.fixed_dictionaries({"status": json_values, "task_id": json_values, "result": json_values})


def test_no_published_result_stops_the_reader(app: Celery, client: Redis, reader: ReplyReader[Waiter]) -> None:
    @few
    @given(items | _metas.map(lambda meta: json.dumps(meta).encode()))
    def check(data: bytes) -> None:
        waiter = Waiter()
        reader.register("prefix-sound", waiter)
        wait_until(lambda: client.publish("celery-task-meta-prefix-1", data), what="the subscription")
        meta = {"status": "SUCCESS", "result": 1, "task_id": "prefix-sound"}
        client.publish("celery-task-meta-prefix-sound", json.dumps(meta))
        assert waiter.future.result(60)["result"] == 1

    check()


@few
@given(st.fixed_dictionaries({"status": st.sampled_from([*states.READY_STATES]), "result": json_values}))
def test_any_result_is_a_result_or_an_error_of_ours(meta: dict[str, Any]) -> None:
    reply = PendingReply(TOOLS["kv_batch"], "operation", Message("task", "id", {}, "", give_up_at=0.0))
    with contextlib.suppress(KVStoreError):
        reply.outcome(meta)


def test_a_worker_replaces_a_stored_result_that_it_cannot_read(app: Celery, client: Redis) -> None:
    @few
    @given(items)
    def check(data: bytes) -> None:
        client.set("celery-task-meta-t", data)
        app.backend.mark_as_failure("t", ValueError("x"))
        assert json.loads(client.get("celery-task-meta-t"))["status"] == states.FAILURE  # type: ignore[arg-type]

    check()
