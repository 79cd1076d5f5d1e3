"""Malformed messages: the worker refuses each of them, and keeps running."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker import KeyValueStore
from tests.support.malformed import push
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

MALFORMED: dict[str, dict[str, Any]] = {
    "no id": {"headers": {"id": None}},
    "an id that is not a string": {"headers": {"id": 5}},
    "a body of null": {"body": b"null"},
    "a body that is not a list": {"body": b'{"value": "the-secret"}'},
    "a short body": {"body": b'["the-secret"]'},
    "keyword arguments that are not an object": {"body": b'[[], ["the-secret"], {}]'},
    "a chain of a wrong type": {"body": b'[[], {"value": "the-secret"}, {"chain": [1]}]'},
    "a chord of a wrong type": {"body": b'[[], {"value": "the-secret"}, {"chord": 3}]'},
    "bytes that are not text": {"body": b"\xff\xfe"},
    "an unknown tagged type": {"body": b'[[], {"value": {"__type__": "no-such", "__value__": "the-secret"}}, {}]'},
    "no content type": {"content-type": None},
    "a content type that runs code": {"content-type": "application/x-python-serialize"},
    "time limits that are not numbers": {"headers": {"timelimit": "soon"}},
    "an expiry that is not a time": {"headers": {"expires": "soon"}},
    "an eta that is not text": {"headers": {"eta": {}}},
    "stamps that are not a list": {"headers": {"stamped_headers": 5}},
    "a name that is not text": {"headers": {"shadow": {"a": 1}}},
    "a header with the name of a method": {"headers": {"get": 5}},
    "a header that Celery uses itself": {"headers": {"_children": 5}},
    "a chain in the headers": {"headers": {"chain": 5}},
    "a callback without arguments": {"body": b'[[], {"value": "the-secret"}, {"callbacks": [{"task": "no.such"}]}]'},
    "a chain without options": {
        "body": b'[[], {"value": "the-secret"}, {"chain": [{"task": "x", "args": [], "kwargs": {}, "options": 5}]}]'
    },
    "a value that is nested too deep": {"body": b'[[], {"value": ' + b"[" * 600 + b"]" * 600 + b"}, {}]"},
    "arguments that are nested too deep": {"body": b"[[" + b"[" * 900 + b"]" * 900 + b"], {}, {}]"},
}

_PROPERTIES = '{"properties": {"delivery_tag": "x", "delivery_info": {"exchange": "", "routing_key": "kv"}}'
NOT_MESSAGES: list[bytes] = [
    b"the-secret",
    b"\xff\xfe",
    b"{",
    b"null",
    b"5",
    b"[1]",
    b'{"body": "the-secret"}',
    b'{"properties": {"delivery_tag": "x"}, "body": "the-secret"}',
    f'{_PROPERTIES}, "headers": 5}}'.encode(),
    f'{_PROPERTIES}, "headers": {{"task": "kvworker.kv_set"}}, "body": 5}}'.encode(),
    f'{_PROPERTIES[:-1]}, "body_encoding": "rot13"}}, "body": "the-secret"}}'.encode(),
    f'{_PROPERTIES[:-1]}, "body_encoding": ["base64"]}}, "body": "the-secret"}}'.encode(),
]


@pytest.mark.parametrize("worker_arguments", [["--concurrency=1"], ["--pool=threads", "--concurrency=1"]], ids=str)
def test_a_malformed_message_is_refused_and_the_worker_keeps_running(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    with valkey_node.client() as client:
        for name, changes in MALFORMED.items():
            push(client, changes)
            assert store.get("n", "k", timeout=20).found is False, name
        wait_until(lambda: not client.llen("kv") and not client.hlen("kvworker.unacked"), what="every message settled")
    assert worker_node.status == "running"
    assert worker_node.logs().count("a malformed message for kvworker.kv_set is refused") == len(MALFORMED)
    assert "Connection to broker lost" not in worker_node.logs()
    assert "the-secret" not in worker_node.logs()


def test_an_unknown_task_is_refused_without_logging_its_body(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    with valkey_node.client() as client:
        push(client, {"headers": {"task": "kvworker.kv_of_a_newer_version"}})
        push(client, {"headers": {"task": "celery.chain", "stamped_headers": 5}})
        push(client, {"headers": {"compression": "no-such"}})
        push(client, {"headers": {"task": ["the-name"]}})
        push(client, {"headers": {"task": "kvworker.kv_unknown", "id": ["the-id"]}})
        assert store.get("n", "k", timeout=20).found is False
        wait_until(lambda: client.hlen("kvworker.unacked") == 0, what="every message settled")
    assert worker_node.status == "running"
    assert "kv_of_a_newer_version" in worker_node.logs()
    assert "a malformed message for celery.chain is refused" in worker_node.logs()
    assert "the-secret" not in worker_node.logs()


@pytest.mark.parametrize("worker_arguments", [["--concurrency=1"], ["--pool=solo"]], ids=str)
def test_an_item_that_is_not_a_message_is_dropped_and_the_worker_keeps_running(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    with valkey_node.client() as client:
        for item in NOT_MESSAGES:
            client.lpush("kv", item)
            assert store.get("n", "k", timeout=20).found is False, item
    assert worker_node.status == "running"
    assert worker_node.logs().count("is dropped from") == len(NOT_MESSAGES)
    assert "Connection to broker lost" not in worker_node.logs()
    assert "the-secret" not in worker_node.logs()
