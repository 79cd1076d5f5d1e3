"""Faults of messages: real messages in the queue are duplicated, reordered, damaged or made hostile."""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from redis import Redis

from tests.chaos.process_faults import suspended
from tests.chaos.scenario import ClusterContext, FaultContext
from tests.support.processes import wait_until

QUEUE = "kv"
#: The prefix of keys and ids that no caller uses.
INJECTED = "injected"

_WAIT_SECONDS = 3.0
_KEPT_MESSAGES = 60
_COPIED_MESSAGES = 12
_MANY = 1000

Payload: TypeAlias = dict[str, Any]

VERSIONS: tuple[Any, ...] = (2, 0, -1, "1", 1.5, None, [], {}, 10**30)
OVERSIZED: tuple[Payload, ...] = (
    {"value": "x" * 3_000_000},
    {"value": json.loads("[" * 300 + "]" * 300)},
    {"key": INJECTED + "k" * 5000},
    {"namespace": "n" * 300},
    {"idempotency_key": INJECTED + "i" * 5000},
    {"operations": [{"tool": "kv_set", "key": f"{INJECTED}-{number}", "value": number} for number in range(1001)]},
)
PICKLES = ("application/x-python-serialize", "pickle", "application/json", "yaml")


@contextmanager
def queue_held(context: ClusterContext) -> Iterator[tuple[Redis, list[bytes]]]:
    """Freeze the workers, and give the queue's client and the messages that pile up in the queue."""
    with context.cluster.valkey.client() as client, suspended(*context.cluster.workers):
        wait_until(lambda: client.llen(QUEUE) > 1, timeout_seconds=_WAIT_SECONDS, what="messages in the queue")
        yield client, client.lrange(QUEUE, 0, -1)


def duplicate(context: ClusterContext) -> None:
    """Queue messages once or twice more, and queue older messages again that were already answered."""
    with queue_held(context) as (client, items):
        old: list[bytes] = context.memory.setdefault("old", [])
        # Without limits, the queue would soon hold only copies of copies.
        fresh = [item for item in dict.fromkeys(items) if item not in old][:_COPIED_MESSAGES]
        copies = [item for item in fresh for _ in range(context.rng.randint(1, 2))]
        copies += context.rng.sample(old, min(len(old), _COPIED_MESSAGES))
        for copy in copies:
            context.rng.choice((client.lpush, client.rpush))(QUEUE, copy)
        context.memory["old"] = [*old, *fresh][-_KEPT_MESSAGES:]
    assert copies


def reorder(context: ClusterContext) -> None:
    """Shuffle the messages in the queue."""
    with queue_held(context) as (client, _):
        popped = client.lpop(QUEUE, _MANY) or []
        shuffled = context.rng.sample(popped, len(popped))
        client.rpush(QUEUE, *(shuffled if shuffled != popped else reversed(popped)))


def truncate(context: FaultContext) -> None:
    """Queue messages that are cut off, either the whole item or its body."""

    def cut(item: bytes) -> bytes:
        message = json.loads(item)
        body = message["body"]
        if context.rng.random() < 0.3:
            return item[: context.rng.randrange(len(item))]
        if context.rng.random() < 0.5:
            message["body"] = body[: context.rng.randrange(len(body) - 4)]
        else:
            text = base64.b64decode(body)
            message["body"] = base64.b64encode(text[: context.rng.randrange(len(text))]).decode()
        return json.dumps(message).encode()

    _inject(context, cut)


def unknown_version(context: FaultContext) -> None:
    """Queue messages with another version."""
    _inject(context, lambda item: _changed(item, {"v": context.next_of(VERSIONS)}))


def oversize(context: FaultContext) -> None:
    """Queue messages that exceed the limits."""
    _inject(context, lambda item: _changed(item, context.next_of(OVERSIZED)))


class _Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self._path, "unpickled")


def use_pickle(context: FaultContext) -> None:
    """Queue messages whose body is a pickle that would run code."""
    path = context.cluster.directory / "unpickled"
    body = base64.b64encode(pickle.dumps([[], {"value": _Bomb(path)}, {}])).decode()

    def make(item: bytes) -> bytes:
        message = json.loads(item)
        message.update({"body": body, "content-type": context.next_of(PICKLES), "content-encoding": "binary"})
        message["headers"]["id"] = f"{INJECTED}-{message['headers']['id']}"
        return json.dumps(message).encode()

    _inject(context, make)
    assert not path.exists(), "a worker has run code from a message"


#: Payloads with one forbidden field each.
HOSTILE_PAYLOADS: tuple[Payload, ...] = (
    {"namespace": 5},
    {"namespace": {}},
    {"namespace": ""},
    {"namespace": {"__type__": "datetime", "__value__": "2020-01-01T00:00:00"}},
    {"key": ["a"]},
    {"key": None},
    {"key": "\ud800"},
    {"value": {"__type__": "bytes", "__value__": "AA=="}},
    {"value": {"__type__": "no-such", "__value__": 1}},
    {"value": float("nan")},
    {"value": float("-inf")},
    {"ttl_seconds": "1"},
    {"ttl_seconds": -1},
    {"ttl_seconds": float("inf")},
    {"ttl_seconds": 0},
    {"ttl_seconds": True},
    {"expected_version": "1"},
    {"if_absent": "yes"},
    {"idempotency_key": []},
    {"idempotency_key": ""},
    {"deadline": "soon"},
    {"deadline": 10**400},
    {"persona": {}},
    {"no_such_argument": 1},
    {"self": 1},
    {"__class__": "str"},
    {"operations": []},
    {"delta": 1},
)
#: The same for the other parts of an item. Their payload is refused anyway.
HOSTILE_HEADERS: tuple[dict[str, Any], ...] = (
    {"id": None},
    {"id": 5},
    {"id": {"a": 1}},
    {"task": None},
    {"task": "os.system"},
    {"task": "kvworker.kv_no_such"},
    {"task": ["kvworker.kv_set"]},
    {"retries": "many"},
    {"timelimit": "soon"},
    {"eta": {}},
    {"expires": []},
    {"root_id": 7, "parent_id": []},
    {"group": {"a": 1}},
    {"argsrepr": 5, "kwargsrepr": {}},
    {"compression": "no-such"},
    {"lang": None},
    {"stamped_headers": 5},
)


HOSTILE_PROPERTIES: tuple[dict[str, Any], ...] = (
    {"delivery_tag": []},
    {"delivery_tag": None},
    {"delivery_info": 5},
    {"delivery_info": {"exchange": [], "routing_key": {}}},
    {"correlation_id": []},
    {"reply_to": {}},
    {"priority": "high"},
    {"body_encoding": []},
    {"body_encoding": "rot13"},
)
HOSTILE_ITEMS: tuple[dict[str, Any], ...] = (
    {"body": 5},
    {"body": None},
    {"body": {}},
    {"content-type": []},
    {"content-encoding": []},
    {"content-encoding": "no-such"},
    {"headers": []},
    {"headers": None},
    {"properties": []},
    {"properties": None},
)
_REFUSED_PAYLOAD: Payload = {"no_such_argument": 1}
#: All hostile changes: the part of an item, and the change to it.
HOSTILE: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("payload", change) for change in HOSTILE_PAYLOADS),
    *(("headers", change) for change in HOSTILE_HEADERS),
    *(("properties", change) for change in HOSTILE_PROPERTIES),
    *(("item", change) for change in HOSTILE_ITEMS),
)


def use_hostile_types(context: FaultContext) -> None:
    """Queue messages whose fields have unexpected types."""

    def make(item: bytes) -> bytes:
        part, change = context.next_of(HOSTILE)
        message = json.loads(_changed(item, change if part == "payload" else _REFUSED_PAYLOAD))
        (message if part == "item" else message.get(part, {})).update(change)
        return json.dumps(message).encode()

    _inject(context, make)


def _changed(item: bytes, change: Payload) -> bytes:
    """Make a set of a key that no caller uses from a real message, and apply the change."""
    message = json.loads(item)
    _, payload, embedded = json.loads(base64.b64decode(message["body"]))
    name = f"{INJECTED}-{message['headers']['id']}"
    kept = {field: payload[field] for field in ("namespace", "v", "deadline") if field in payload}
    made = {**kept, "key": name, "value": name, "idempotency_key": name, **change}
    message["headers"].update({"id": name, "task": "kvworker.kv_set"})
    message["body"] = base64.b64encode(json.dumps([[], made, embedded]).encode()).decode()
    return json.dumps(message).encode()


def _inject(context: FaultContext, make: Callable[[bytes], bytes]) -> None:
    """Queue an item made from each message in the queue, and wait until workers consume the queue."""
    with queue_held(context) as (client, items):
        for item in items:
            context.rng.choice((client.lpush, client.rpush))(QUEUE, make(item))
    with context.cluster.valkey.client() as client:
        wait_until(lambda: client.llen(QUEUE) < len(items), what="the queue being consumed")
