"""Messages that are in the queue twice, in another order, damaged, or made by nobody's client: from real ones."""

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
from tests.chaos.scene import Scene
from tests.support.processes import wait_until

QUEUE = "kv"
#: Begins the keys, ids and so on of what no caller asked for.
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
def queue_held(scene: Scene) -> Iterator[tuple[Redis, list[bytes]]]:
    """The queue, and the messages that pile up in it, while no worker takes any."""
    with scene.stand.valkey.client() as client, suspended(*scene.stand.workers):
        wait_until(lambda: client.llen(QUEUE) > 1, timeout_seconds=_WAIT_SECONDS, what="messages in the queue")
        yield client, client.lrange(QUEUE, 0, -1)


def duplicate(scene: Scene) -> None:
    """Put messages into the queue once or twice more, and older ones again that were answered before."""
    with queue_held(scene) as (client, items):
        old: list[bytes] = scene.notes.setdefault("old", [])
        # Without limits there would soon be nothing but copies of copies in the queue.
        fresh = [item for item in dict.fromkeys(items) if item not in old][:_COPIED_MESSAGES]
        copies = [item for item in fresh for _ in range(scene.chance.randint(1, 2))]
        copies += scene.chance.sample(old, min(len(old), _COPIED_MESSAGES))
        for copy in copies:
            scene.chance.choice((client.lpush, client.rpush))(QUEUE, copy)
        scene.notes["old"] = [*old, *fresh][-_KEPT_MESSAGES:]
    assert copies


def reorder(scene: Scene) -> None:
    """Shuffle the messages in the queue."""
    with queue_held(scene) as (client, _):
        taken = client.lpop(QUEUE, _MANY) or []
        shuffled = scene.chance.sample(taken, len(taken))
        client.rpush(QUEUE, *(shuffled if shuffled != taken else reversed(taken)))


def truncate(scene: Scene) -> None:
    """Put a message into the queue that ends too early, as an item or in its body."""

    def cut(item: bytes) -> bytes:
        message = json.loads(item)
        body = message["body"]
        if scene.chance.random() < 0.3:
            return item[: scene.chance.randrange(len(item))]
        if scene.chance.random() < 0.5:
            message["body"] = body[: scene.chance.randrange(len(body) - 4)]
        else:
            text = base64.b64decode(body)
            message["body"] = base64.b64encode(text[: scene.chance.randrange(len(text))]).decode()
        return json.dumps(message).encode()

    _inject(scene, cut)


def unknown_version(scene: Scene) -> None:
    """Put messages of other versions into the queue."""
    _inject(scene, lambda item: _changed(item, {"v": scene.following(VERSIONS)}))


def oversize(scene: Scene) -> None:
    """Put messages into the queue that hold more than is taken."""
    _inject(scene, lambda item: _changed(item, scene.following(OVERSIZED)))


class _Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self._path, "unpickled")


def use_pickle(scene: Scene) -> None:
    """Put messages into the queue whose body is a pickle that would run code."""
    path = scene.stand.directory / "unpickled"
    body = base64.b64encode(pickle.dumps([[], {"value": _Bomb(path)}, {}])).decode()

    def make(item: bytes) -> bytes:
        message = json.loads(item)
        message.update({"body": body, "content-type": scene.following(PICKLES), "content-encoding": "binary"})
        message["headers"]["id"] = f"{INJECTED}-{message['headers']['id']}"
        return json.dumps(message).encode()

    _inject(scene, make)
    assert not path.exists(), "a worker has run what a message held"


#: What a payload must not hold, in one place each.
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
#: The same of the other parts of an item; what they come with is refused anyhow.
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
_REFUSED_ANYHOW: Payload = {"no_such_argument": 1}
#: All: the part of an item that is changed, and how.
HOSTILE: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("payload", change) for change in HOSTILE_PAYLOADS),
    *(("headers", change) for change in HOSTILE_HEADERS),
    *(("properties", change) for change in HOSTILE_PROPERTIES),
    *(("item", change) for change in HOSTILE_ITEMS),
)


def be_hostile(scene: Scene) -> None:
    """Put messages into the queue whose fields are of types that nobody expects."""

    def make(item: bytes) -> bytes:
        part, change = scene.following(HOSTILE)
        message = json.loads(_changed(item, change if part == "payload" else _REFUSED_ANYHOW))
        (message if part == "item" else message.get(part, {})).update(change)
        return json.dumps(message).encode()

    _inject(scene, make)


def _changed(item: bytes, change: Payload) -> bytes:
    """A set of a key that no caller uses, made of a real message and changed."""
    message = json.loads(item)
    _, payload, embedded = json.loads(base64.b64decode(message["body"]))
    name = f"{INJECTED}-{message['headers']['id']}"
    kept = {field: payload[field] for field in ("namespace", "v", "deadline") if field in payload}
    made = {**kept, "key": name, "value": name, "idempotency_key": name, **change}
    message["headers"].update({"id": name, "task": "kvworker.kv_set"})
    message["body"] = base64.b64encode(json.dumps([[], made, embedded]).encode()).decode()
    return json.dumps(message).encode()


def _inject(scene: Scene, make: Callable[[bytes], bytes]) -> None:
    """Put into the queue what is made of each message in it, and wait until a worker has taken it."""
    with queue_held(scene) as (client, items):
        for item in items:
            scene.chance.choice((client.lpush, client.rpush))(QUEUE, make(item))
    with scene.stand.valkey.client() as client:
        wait_until(lambda: client.llen(QUEUE) < len(items), what="the queue being taken")
