"""Messages that no client of ours makes: each is refused, and the worker goes on."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from redis import Redis

from kvworker import KeyValueStore
from tests.acceptance.processes import ValkeyNode, WorkerNode, wait_until

SOUND: list[Any] = [[], {"namespace": "n", "key": "k", "value": "the-secret"}, {}]
MALFORMED: dict[str, dict[str, Any]] = {
    "no id": {"id": None},
    "an id that is no string": {"id": 5},
    "a body of null": {"body": b"null"},
    "a body that is no list": {"body": b'{"value": "the-secret"}'},
    "a short body": {"body": b'["the-secret"]'},
    "keywords that are no object": {"body": b'[[], ["the-secret"], {}]'},
    "a chain that is none": {"body": b'[[], {"value": "the-secret"}, {"chain": [1]}]'},
    "a chord that is none": {"body": b'[[], {"value": "the-secret"}, {"chord": 3}]'},
    "bytes that are no text": {"body": b"\xff\xfe"},
    "an unknown tagged type": {"body": b'[[], {"value": {"__type__": "no-such", "__value__": "the-secret"}}, {}]'},
    "no content type": {"content-type": None},
    "a content type that runs code": {"content-type": "application/x-python-serialize"},
    "time limits that are no numbers": {"timelimit": "soon"},
    "an expiry that is no time": {"expires": "soon"},
}

_PROPERTIES = '{"properties": {"delivery_tag": "x", "delivery_info": {"exchange": "", "routing_key": "kv"}}'
NO_MESSAGES: list[bytes] = [
    b"the-secret",
    b"\xff\xfe",
    b"{",
    b"null",
    b"5",
    b"[1]",
    b'{"body": "the-secret"}',
    b'{"properties": {"delivery_tag": "x"}, "body": "the-secret"}',
    f'{_PROPERTIES}, "headers": 5}}'.encode(),
]


def _push(client: Redis, changes: dict[str, Any]) -> None:
    headers = {"task": "kvworker.kv_set", "id": "by-hand", "lang": "py"}
    message = {
        "body": base64.b64encode(changes.get("body", json.dumps(SOUND).encode())).decode(),
        "content-type": changes.get("content-type", "application/json"),
        "content-encoding": "utf-8",
        "headers": {**headers, **{k: v for k, v in changes.items() if k in {"id", "timelimit", "expires"}}},
        "properties": {
            "body_encoding": "base64",
            "delivery_tag": "by-hand",
            "delivery_info": {"exchange": "", "routing_key": "kv"},
        },
    }
    client.lpush("kv", json.dumps(message))


@pytest.mark.parametrize("worker_arguments", [["--concurrency=1"], ["--pool=threads", "--concurrency=1"]], ids=str)
def test_a_malformed_message_is_refused_and_the_worker_goes_on(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    with valkey_node.client() as client:
        for name, changes in MALFORMED.items():
            _push(client, changes)
            assert store.get("n", "k", timeout=20).found is False, name
        wait_until(lambda: client.hlen("kvworker.unacked") == 0, what="every message settled")
        assert client.llen("kv") == 0
    assert worker_node.status == "running"
    assert worker_node.logs().count("a malformed message for kvworker.kv_set is refused") == len(MALFORMED)
    assert "Connection to broker lost" not in worker_node.logs()
    assert "the-secret" not in worker_node.logs()


@pytest.mark.parametrize("worker_arguments", [["--concurrency=1"], ["--pool=solo"]], ids=str)
def test_an_item_that_is_no_message_is_dropped_and_the_worker_goes_on(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    with valkey_node.client() as client:
        for item in NO_MESSAGES:
            client.lpush("kv", item)
            assert store.get("n", "k", timeout=20).found is False, item
    assert worker_node.status == "running"
    assert worker_node.logs().count("is dropped from") == len(NO_MESSAGES)
    assert "Connection to broker lost" not in worker_node.logs()
    assert "the-secret" not in worker_node.logs()
