"""Publishing to a Redis broker: the arriving message, the sending thread, and the state after a failure."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.signals import after_task_publish, before_task_publish
from kombu import serialization
from redis import Redis

from kvworker import AsyncKeyValueStore, KeyValueStore, Settings
from kvworker.client.transport.kombu import KombuTransport
from kvworker.client.transport.message import Message
from kvworker.client.transport.publisher import Publisher
from kvworker.client.transport.redis import RedisTransport
from kvworker.errors import KVStoreError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.redis_connections import _FRESH_SECONDS
from kvworker.messaging.waiting import waiting_header
from kvworker.messaging.wire import encode_request
from kvworker.model import EncodedValue
from tests.support.elapsed import finishes_within
from tests.support.processes import ValkeyNode, running, wait_until
from tests.support.tls import make_signer

Transport = RedisTransport | KombuTransport
VALUES: list[Any] = [{"a": "ü\u0000"}, {"__type__": "datetime", "__value__": "2026"}, 2**70, None]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ValkeyNode]:
    with running(ValkeyNode(tmp_path)) as node:
        yield node


@pytest.fixture
def client(node: ValkeyNode) -> Iterator[Redis]:
    with node.client() as client:
        yield client


@pytest.fixture
def app(node: ValkeyNode) -> Celery:
    return make_celery(Settings.from_mapping({"queue": {"broker_url": node.url}}))


@pytest.fixture
def publisher(app: Celery) -> Iterator[Publisher]:
    publisher = Publisher(app, threads=2, queue_name="kv", timeout_seconds=1.0)
    yield publisher
    publisher.close()


def message(task_id: str = "id", value: object = 1, seconds: float = 10.0) -> Message:
    payload = encode_request({"namespace": "n", "key": "k", "value": EncodedValue.of(value)}, deadline=1e10)
    give_up_at, waiting = time.monotonic() + seconds, waiting_header(1e10, seconds)
    return Message("kvworker.kv_set", task_id, payload, "kv_set(...)", give_up_at, waiting_header=waiting)


def is_sent(sent: Message) -> Callable[[], bool]:
    return lambda: not sent._is_sending


def connect_publisher(publisher: Publisher) -> None:
    """Give the publisher a connection that is ready."""
    first = message("first")
    publisher.send(first, may_wait=True)
    wait_until(is_sent(first), what="the first message")


def _published(client: Redis, transport: Transport, sent: Message, key: str) -> dict[str, Any]:
    connection = transport.acquire()
    transport.publish(connection, sent)
    transport.discard(connection)
    item: dict[str, Any] = json.loads(client.rpop(key))  # type: ignore[arg-type]
    assert len(item["properties"].pop("delivery_tag")) == 36
    return item


@pytest.mark.parametrize("options", [{}, {"global_keyprefix": "p:"}, {"priority_steps": [0, 5]}], ids=str)
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_message_equals_the_one_of_celery_and_kombu(
    app: Celery, client: Redis, options: dict[str, Any], value: object
) -> None:
    app.conf.broker_transport_options.update(options)
    key = options.get("global_keyprefix", "") + "kv"
    by_kombu = _published(client, KombuTransport(app, queue_name="kv", timeout_seconds=1), message(value=value), key)
    bindings = client.keys("*_kombu.binding.kv")
    client.delete(*bindings)
    by_hand = RedisTransport(app, queue_name="kv", timeout_seconds=1, max_idle=1)
    assert _published(client, by_hand, message(value=value), key) == by_kombu
    assert client.keys("*_kombu.binding.kv") == bindings
    assert by_kombu["headers"]["id"] == "id"


def test_a_signed_message_equals_the_one_of_celery_and_kombu(node: ValkeyNode, client: Redis, tmp_path: Path) -> None:
    signer = make_signer(tmp_path, "caller")
    files = {"security_key": signer.key, "security_certificate": signer.certificate, "security_cert_store": "*.pem"}
    data = {"queue": {"broker_url": node.url}, "policies": {name: str(file) for name, file in files.items()}}
    app = make_celery(Settings.from_mapping(data, directory=tmp_path))
    transports = (
        KombuTransport(app, queue_name="kv", timeout_seconds=1),
        RedisTransport(app, queue_name="kv", timeout_seconds=1, max_idle=1),
    )
    by_kombu, by_hand = [_published(client, transport, message(value=VALUES[0]), "kv") for transport in transports]
    bodies = [base64.b64decode(item.pop("body")) for item in (by_kombu, by_hand)]
    assert by_hand == by_kombu
    assert by_hand["content-type"] == "application/data"
    # Every signature is different.
    read = [serialization.loads(body, "application/data", "utf-8", accept=["auth"]) for body in bodies]
    assert read[0] == read[1]
    assert read[0][1]["value"] == VALUES[0]


def test_receivers_of_celerys_signals_get_the_arguments_that_celery_gives(app: Celery, client: Redis) -> None:
    heard: list[dict[str, Any]] = []

    def trace(headers: dict[str, Any], **details: Any) -> None:
        heard.append({"headers": dict(headers), **details})
        headers["traceparent"] = f"of {headers['id']}"

    before_task_publish.connect(trace)
    after_task_publish.connect(trace)
    try:
        for transport in (
            RedisTransport(app, queue_name="kv", timeout_seconds=1, max_idle=1),
            KombuTransport(app, queue_name="kv", timeout_seconds=1),
        ):
            assert _published(client, transport, message(), "kv")["headers"]["traceparent"] == "of id"
    finally:
        before_task_publish.disconnect(trace)
        after_task_publish.disconnect(trace)
    assert len(heard) == 4
    assert heard[:2] == heard[2:]


def test_a_caller_with_a_ready_connection_publishes_itself_and_an_event_loop_never_does(node: ValkeyNode) -> None:
    settings = Settings.from_mapping({"queue": {"broker_url": node.url}})
    threads: list[str] = []

    def record(**_: Any) -> None:
        threads.append(threading.current_thread().name.rpartition("_")[0] or threading.current_thread().name)

    async def in_a_loop() -> None:
        async with AsyncKeyValueStore(settings) as store:
            for _ in range(2):
                with pytest.raises(KVStoreError):
                    await store.get("n", "k", timeout=2.0)

    before_task_publish.connect(record)
    try:
        with KeyValueStore(settings) as store:
            for _ in range(2):
                with pytest.raises(KVStoreError):
                    store.get("n", "k", timeout=2.0)
        asyncio.run(in_a_loop())
    finally:
        before_task_publish.disconnect(record)
    assert threads == ["kvworker-send", "MainThread", "kvworker-send", "kvworker-send"]


@pytest.mark.parametrize("value", [1, "x" * 16_000_000], ids=["small", "larger than the socket buffer"])
def test_a_frozen_broker_delays_a_caller_at_most_until_the_deadline(
    publisher: Publisher, node: ValkeyNode, value: object
) -> None:
    connect_publisher(publisher)
    node.kill("SIGSTOP")
    try:
        for seconds in (0.5, 5.0):  # the socket's own limit is 1 s
            sent = message(f"frozen-{seconds}", value, seconds)
            with finishes_within(min(seconds, 1.0) + 0.3):
                publisher.send(sent, may_wait=True)
            if seconds < 1.0:
                assert not sent.abandon(), "the broker may have it"
    finally:
        node.kill("SIGCONT")


def test_neither_signals_nor_a_handled_exception_change_the_delivery_state(
    publisher: Publisher, node: ValkeyNode
) -> None:
    connect_publisher(publisher)
    node.kill("SIGSTOP")
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    try:
        sent = message("interrupted", seconds=1.0)
        with finishes_within(1.3):
            try:
                raise FileNotFoundError  # noqa: TRY301 - a program may call from an except clause
            except FileNotFoundError:
                publisher.send(sent, may_wait=True)
        assert not sent.abandon(), "the broker may have it"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        node.kill("SIGCONT")


def test_a_refusal_does_not_count_as_a_copy_and_is_tried_again(publisher: Publisher, client: Redis) -> None:
    connect_publisher(publisher)
    client.config_set("maxmemory", "1")
    sent = message("refused")
    publisher.send(sent, may_wait=True)
    wait_until(lambda: "memory" in sent.last_problem, what="the refusal")
    assert sent.copies <= 1
    assert client.llen("kv") == 1
    client.config_set("maxmemory", "0")
    wait_until(is_sent(sent), what="another attempt")
    assert (sent.copies, client.llen("kv")) == (1, 2)


def test_a_connection_that_the_broker_closed_is_not_written_to(
    publisher: Publisher, client: Redis, node: ValkeyNode
) -> None:
    connect_publisher(publisher)
    node.kill()
    time.sleep(2 * _FRESH_SECONDS)  # a connection used more recently is assumed to be open
    sent = message("lost", seconds=0.3)
    publisher.send(sent, may_wait=True)
    wait_until(is_sent(sent), what="the deadline")
    assert sent.abandon(), "the broker is known never to have had it"


def test_after_close_nothing_is_sent(publisher: Publisher, client: Redis) -> None:
    connect_publisher(publisher)
    publisher.close()
    sent = message("closed")
    publisher.send(sent, may_wait=True)
    assert sent.abandon()
    assert client.llen("kv") == 1
    wait_until(lambda: len(client.client_list()) == 1, what="closed connections")


def test_many_threads_send_each_message_once(publisher: Publisher, client: Redis) -> None:
    connect_publisher(publisher)
    with ThreadPoolExecutor(32) as threads:
        list(threads.map(lambda n: publisher.send(message(f"number {n}"), may_wait=True), range(640)))
    wait_until(lambda: client.llen("kv") == 641, what="all messages")
    ids = {json.loads(item)["headers"]["id"] for item in client.lrange("kv", 0, -1)}
    assert len(ids) == 641


def test_a_queued_or_unacknowledged_message_is_not_lost(publisher: Publisher, client: Redis) -> None:
    sent = [message(f"message {number}") for number in range(3)]
    for one in sent:
        publisher.send(one, may_wait=True)
        wait_until(is_sent(one), what="a message")
    assert list(publisher._transport.find_lost(sent)) == []
    client.delete("kv")
    client.hset("kvworker.unacked", sent[1].delivery_tag, "recorded")
    assert [one.task_id for one in publisher._transport.find_lost(sent)] == ["message 0", "message 2"]
    publisher.resend_lost(sent)
    wait_until(lambda: client.llen("kv") == 2, what="the lost ones again")


def test_an_abandoned_message_is_not_tried_again(publisher: Publisher, node: ValkeyNode) -> None:
    node.kill()
    sent = message("abandoned", seconds=60.0)
    publisher.send(sent, may_wait=True)
    wait_until(lambda: sent.last_problem, what="a failed attempt")
    assert sent.abandon(), "the broker is known never to have had it"
    wait_until(is_sent(sent), what="the end of its attempts")
    assert sent.copies == 0
