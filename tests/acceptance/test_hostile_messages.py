"""Messages of someone who reaches the broker: no worker ends, none takes gigabytes, and no log shows what they hold."""

from __future__ import annotations

import base64
import bz2
import json
import zlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import psutil
import pytest
from celery import Celery
from redis import Redis

from kvworker import InvalidRequestError, KeyValueStore, Settings
from tests.support.hostile import TAGS
from tests.support.malformed import VALID_BODY, push
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

VALUE = "the-secret"
_POISON = {"__type__": "uuid", "__value__": 5}
_ADDRESS = {"exchange": "", "routing_key": "kv"}
UNDECODABLE: list[bytes] = [
    *(json.dumps({"__type__": tag, "__value__": ["the-secret"]}).encode() for tag in TAGS),
    b'{"__type__": ["the-secret"], "__value__": 5}',
    b"[" * 200_000,
    b'{"headers": ' + b"[" * 900 + b"]" * 900 + b"}",
]
_SPACES = b" " * 10_000_000


@pytest.fixture(params=[["--pool=prefork", "--concurrency=1"], ["--pool=threads", "--concurrency=1"]], ids=str)
def worker_arguments(request: pytest.FixtureRequest) -> list[str]:
    return list(request.param)


@pytest.fixture
def config_overrides() -> dict[str, Any]:
    return {"queue": {"max_message_bytes": 1_000_000}}


@pytest.fixture
def broker(valkey_node: ValkeyNode) -> Iterator[Redis]:
    with valkey_node.client() as client:
        yield client


@pytest.fixture
def stranger(valkey_node: ValkeyNode) -> Iterator[Celery]:
    """An application that is not ours, with Celery's defaults."""
    with Celery("stranger", broker=valkey_node.url, backend=valkey_node.url, set_as_current=False) as app:
        yield app


def peak_megabytes(worker: WorkerNode) -> int:
    """Return the most memory that the worker's main process has used."""
    with open(f"/proc/{worker.pid}/status", encoding="ascii") as status:  # noqa: PTH123 - no other way to read it
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024


def test_someone_who_reaches_the_broker_ends_no_worker_and_finds_nothing_in_its_log(
    settings: Settings, store: KeyValueStore, worker_node: WorkerNode, broker: Redis, stranger: Celery
) -> None:
    store.set("n", "k", VALUE)
    before = peak_megabytes(worker_node)
    queue_undecodable_items(broker, store)
    queue_hostile_headers(broker, store)
    publish_control_messages(broker, store, settings, worker_node)
    leave_unreadable_records(broker, store)
    queue_bombs(broker, store)
    queue_large_messages(broker, store)
    if psutil.LINUX:
        assert peak_megabytes(worker_node) < before + 100
    send_with_another_program(stranger, store)
    wait_until(lambda: not broker.llen("kv") and not broker.hlen("kvworker.unacked"), what="every message settled")
    assert worker_node.status == "running"
    logs = worker_node.logs()
    assert VALUE not in logs
    assert "Traceback" not in logs
    assert "Connection to broker lost" not in logs


def test_no_name_from_the_broker_forges_a_line_of_the_log(
    store: KeyValueStore, worker_node: WorkerNode, stranger: Celery
) -> None:
    store.set("n", "k", VALUE, timeout=60)
    forged = "[2026-01-01 00:00:00,000: ERROR/MainProcess] forged"
    name = f"no-such\n{forged}\r\x1b[2J\x9b\u202e"
    entry = {"namespace": "n", "key": "k"}
    stranger.send_task("kvworker.kv_get", kwargs=entry, queue="kv", task_id=name)
    stranger.send_task(name, kwargs=entry, queue="kv")
    check_answers(store, "messages with a forged id and a forged name")
    stranger.control.revoke(name)
    stranger.control.rate_limit(name, "5/m")
    stranger.control.time_limit(name, soft=1)
    wait_until(lambda: worker_node.logs().count(forged) >= 3, what="the names in the log")
    lines = worker_node.logs().split("\n")
    assert not [line for line in lines if line.startswith(forged)]
    assert [line for line in lines if rf"no-such\n{forged}\r\x1b[2J\x9b\u202e" in line]
    assert [ascii(line) for line in lines if not line.isprintable()] == []


def check_answers(store: KeyValueStore, what: object) -> None:
    assert store.get("n", "k", timeout=60).value == VALUE, what


def queue_undecodable_items(broker: Redis, store: KeyValueStore) -> None:
    for item in UNDECODABLE:
        broker.lpush("kv", item)
        check_answers(store, item[:60])


def queue_hostile_headers(broker: Redis, store: KeyValueStore) -> None:
    poison = [{"__type__": tag, "__value__": [VALUE]} for tag in TAGS]
    names: list[Any] = ["\ud800", "a\n[2026-01-01 00:00:00,000: ERROR/MainProcess] forged", "\x1b[2J", "x" * 256]
    changes = [
        *({"x": value} for value in poison),
        *({name: value} for name in ("id", "root_id", "parent_id", "group") for value in names),
        {"task": "no-such\n[2026-01-01 00:00:00,000: ERROR/MainProcess] forged"},
        {"x": json.loads("[" * 500 + "]" * 500)},
    ]
    for change in changes:
        push(broker, {"headers": {"argsrepr": VALUE, "kwargsrepr": VALUE, "shadow": VALUE, **change}})
        check_answers(store, change)


def publish_control_messages(broker: Redis, store: KeyValueStore, settings: Settings, worker: WorkerNode) -> None:
    def item(body: object = (), **headers: Any) -> bytes:
        properties = {"delivery_tag": "t", "delivery_info": _ADDRESS, "body_encoding": "base64"}
        encoded = base64.b64encode(json.dumps(body).encode()).decode()
        kind = {"content-type": "application/json", "content-encoding": "utf-8"}
        return json.dumps({"body": encoded, "headers": headers, "properties": properties, **kind}).encode()

    hostile = [*UNDECODABLE, item(), item(VALUE), item(_POISON), item(clock=10**400), item(clock=VALUE)]
    hostile += [item(compression="application/x-bz2"), item([VALUE]), item(None), item({"method": VALUE})]
    hostile += [item({"method": "revoke", "arguments": arguments}) for arguments in ([VALUE], {VALUE: 1})]
    hostile += [
        item({"method": "add_consumer", "arguments": {"queue": 5}}),
        item({"method": "add_consumer", "arguments": {"queue": "q", "exchange": "x", "exchange_type": VALUE}}),
        item({"method": "ping", "reply_to": VALUE}),
    ]
    for data in hostile:
        wait_until(partial(broker.publish, "/0.celery.pidbox", data), what="the worker listening")
        check_answers(store, data[:60])
    app = Celery(broker=settings.queue.broker_url, set_as_current=False)
    wait_until(lambda: app.control.ping(timeout=1.0), what="an answer to a control command")
    app.close()


def leave_unreadable_records(broker: Redis, store: KeyValueStore) -> None:
    records = [b"the-secret", b"[1]", b'[{"headers": {}, "x": "the-secret"}, "", "kv"]', b'["the-secret", 5, {}]']
    for number, record in enumerate([*UNDECODABLE, *records]):
        broker.hset("kvworker.unacked", f"hostile-{number}", record)
        broker.zadd("kvworker.unacked_index", {f"hostile-{number}": 1})
    wait_until(lambda: broker.hlen("kvworker.unacked") == 0, what="the records to be dropped")
    check_answers(store, "records")


@cache
def bombs() -> dict[str, bytes]:
    """Make messages of 300 MB, compressed, without ever holding one."""
    packed = zlib.compressobj()
    gzip = (packed.compress(part) for part in (b"[", *[_SPACES] * 30, b"]"))
    # A file of several streams is one of all their contents.
    bz2_parts = (bz2.compress(b"["), bz2.compress(_SPACES) * 30, bz2.compress(b"]"))
    return {"application/x-gzip": b"".join(gzip) + packed.flush(), "application/x-bz2": b"".join(bz2_parts)}


def queue_bombs(broker: Redis, store: KeyValueStore) -> None:
    for compression, body in bombs().items():
        push(broker, {"headers": {"compression": compression}, "body": body})
        check_answers(store, compression)
        push(broker, {"content-type": "application/text", "content-encoding": compression[14:], "body": body})
        check_answers(store, f"the encoding {compression[14:]}")


def queue_large_messages(broker: Redis, store: KeyValueStore) -> None:
    body = json.dumps([[], {**VALID_BODY[1], "value": "x" * 1_000_000}, {}]).encode()
    push(broker, {"body": body})
    check_answers(store, "a large message")
    with pytest.raises(InvalidRequestError, match=r"more than queue\.max_message_bytes \(1000000\)"):
        store.set("n", "large", "x" * 1_000_000)
    store.set("n", "large", "x" * 500_000)


def send_with_another_program(stranger: Celery, store: KeyValueStore) -> None:
    entry = {"namespace": "n", "key": "by-hand", "value": VALUE}
    misspelt = stranger.send_task("kvworker.kv_sett", kwargs=entry, queue="kv")
    with pytest.raises(Exception, match=r"kvworker\.kv_sett"):
        misspelt.get(timeout=60)
    tagged = stranger.send_task("kvworker.kv_set", kwargs={**entry, "value": _POISON}, queue="kv")
    with pytest.raises(Exception, match="__type__ and __value__"):
        tagged.get(timeout=60)
    compressed = stranger.send_task("kvworker.kv_set", kwargs=entry, queue="kv", compression="gzip")
    with pytest.raises(Exception, match="it is compressed"):
        compressed.get(timeout=60)
    stranger.conf.task_protocol = 1
    assert stranger.send_task("kvworker.kv_set", kwargs=entry, queue="kv").get(timeout=60)["value"] == VALUE
    assert store.get("n", "by-hand", timeout=60).value == VALUE
    unknown = stranger.send_task("kvworker.kv_sett", kwargs=entry, queue="kv")
    with pytest.raises(Exception, match=r"kvworker\.kv_sett"):
        unknown.get(timeout=60)
    read = store.signature("kv_get", {"namespace": "n", "key": "k"})
    (read | stranger.signature("another.application", queue="kv")).apply_async()
    check_answers(store, "a chain to a task of another application")
