"""A process encodes a value once, whatever it then does with the call."""

from __future__ import annotations

import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.utils.json import dumps, loads

from kvworker import InlineKeyValueStore, KeyValueStore, Settings
from kvworker.client.coalescing import CoalescedMessage, is_coalescable
from kvworker.client.pending_reply import PendingReply
from kvworker.client.transport.message import Message
from kvworker.messaging import wire
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.wire import encode_request
from kvworker.model import JSONValue, values
from kvworker.tools import TOOLS, check_arguments
from kvworker.worker.runtime import Runtime

SETTINGS = Settings.from_mapping(
    {
        "tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}},
        "queue": {"broker_url": "redis://127.0.0.1:1/0"},
    }
)
FIRST: dict[str, JSONValue] = {"a": [1, "x"]}
SECOND: list[JSONValue] = [{"b": None}]
SET = {"namespace": "n", "key": "k", "value": FIRST}
BATCH = {
    "namespace": "n",
    "operations": [
        {"tool": "kv_set", "key": "a", "value": FIRST},
        {"tool": "kv_increment", "key": "c"},
        {"tool": "kv_set", "key": "b", "value": SECOND},
    ],
}
ONCE = Counter([str(FIRST)])
EACH_ONCE = Counter([str(FIRST), str(SECOND)])


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The number of times that each value was encoded."""
    counted: Counter[str] = Counter()
    encode_value = values.encode_value

    def count_encoding(value: object) -> str:
        counted[str(value)] += 1
        return encode_value(value)

    monkeypatch.setattr(values, "encode_value", count_encoding)
    return counted


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The values that were encoded only to look for kombu's tag."""
    found: list[object] = []
    literal = wire._literal

    def record(value: object) -> object:
        found.append(value)
        return literal(value)

    monkeypatch.setattr(wire, "_literal", record)
    return found


@pytest.mark.parametrize(("tool", "arguments", "expected"), [("kv_set", SET, ONCE), ("kv_batch", BATCH, EACH_ONCE)])
@pytest.mark.parametrize("policies", [{}, {"signing_key": "a-key-of-the-tests-own"}], ids=["unsigned", "signed"])
def test_a_client_encodes_a_value_once(
    encoded: Counter[str], searched: list[object], tool: str, arguments: Any, expected: Any, policies: Any
) -> None:
    with KeyValueStore(SETTINGS.model_copy(update={"policies": type(SETTINGS.policies)(**policies)})) as store:
        dumps(store.signature(tool, arguments).kwargs)
        assert (encoded, searched) == (expected, [])
        dumps(store.submit(tool, arguments, timeout=0.1)._reply.message.body())
    assert (encoded, searched) == (expected + expected, [])


def test_a_client_encodes_a_coalesced_value_once(encoded: Counter[str], searched: list[object]) -> None:
    assert coalesced_body()
    assert (encoded, searched) == (EACH_ONCE, [])


def test_a_pipeline_encodes_a_value_once(encoded: Counter[str]) -> None:
    with InlineKeyValueStore() as store, store.pipeline() as pipeline:
        pipeline.set("n", "a", FIRST)
        pipeline.set("n", "b", SECOND)
    assert encoded == EACH_ONCE


def test_an_inline_store_encodes_a_value_once(encoded: Counter[str]) -> None:
    with InlineKeyValueStore() as store:
        assert store.set("n", "k", FIRST).value == FIRST
        store.batch("n", BATCH["operations"])  # type: ignore[arg-type]
    assert encoded == ONCE + EACH_ONCE


@pytest.mark.parametrize(("tool", "arguments", "expected"), [("kv_set", SET, ONCE), ("kv_batch", BATCH, EACH_ONCE)])
def test_a_worker_encodes_a_value_once(
    encoded: Counter[str], tool: str, arguments: dict[str, Any], expected: Counter[str]
) -> None:
    runtime = Runtime(make_celery(SETTINGS), SETTINGS)
    request = SimpleNamespace(id="task", delivery_info={})
    runtime.run_operation(request, TOOLS[tool], (), arguments)
    assert encoded == expected


def test_a_worker_encodes_a_coalesced_value_once(encoded: Counter[str]) -> None:
    body = coalesced_body()
    encoded.clear()
    runtime = Runtime(make_celery(SETTINGS), SETTINGS)
    results = runtime.run_coalesced(SimpleNamespace(id="task", delivery_info={}), body)["results"]
    assert {task_id: result["value"] for task_id, result in results.items()} == {"a": FIRST, "b": SECOND}
    assert encoded == EACH_ONCE


def coalesced_body() -> Any:
    replies = []
    for task_id, value in {"a": FIRST, "b": SECOND}.items():
        arguments = check_arguments(TOOLS["kv_set"], {"namespace": "n", "key": task_id, "value": value})
        assert is_coalescable(TOOLS["kv_set"], arguments)
        payload = encode_request(arguments, deadline=time.time() + 60)
        message = Message("kvworker.kv_set", task_id, payload, "", time.monotonic() + 60)
        replies.append(PendingReply(TOOLS["kv_set"], task_id, message))
    message = CoalescedMessage("group", replies)
    assert message.begin_write()
    return loads(dumps(message.body()))
