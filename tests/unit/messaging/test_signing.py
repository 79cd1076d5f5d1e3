"""Signed messages: genuine ones pass, and a change of any part is noticed."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.json import dumps, loads

from kvworker import InlineKeyValueStore, KeyValueStore
from kvworker.errors import OperationExpiredError, PolicyDeniedError, ValueSerializationError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.signing import UNSIGNED, MessageSigner, is_signed, sign_payload
from kvworker.messaging.wire import encode_request
from kvworker.settings import Settings
from kvworker.tools import TOOLS, check_arguments
from kvworker.worker.runtime import Runtime

KEY = "a-key-of-the-tests-own"
OTHER_KEY = "another-key-of-the-tests"
ACCESS, WRITE = "type.system.kv_store_access", "type.system.kv_store_write"
PERSONAS = {"reader": {"flags": [ACCESS]}, "writer": {"flags": [ACCESS, WRITE]}}
BASE = {
    "tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}},
    "queue": {"broker_url": "redis://127.0.0.1:1/0"},
}
SETTINGS = Settings.from_mapping({**BASE, "policies": {"signing_key": KEY, "personas": PERSONAS}})
SET = TOOLS["kv_set"]
PAYLOAD: dict[str, Any] = {
    "namespace": "n",
    "key": "k",
    "value": {"a": 1, "b": [True, None, 0.5, "é"]},
    "ttl_seconds": 5.0,
    "idempotency_key": "i",
    "persona": "writer",
    "deadline": 4_000_000_000.25,
    "v": 1,
}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"))
tags = st.sampled_from(["__type__", "__value__", "datetime", "bytes", "kvworker.literal"])
values = st.recursive(
    scalars | texts | tags,
    lambda children: st.lists(children) | st.dictionaries(texts | tags, children),
    max_leaves=20,
)


def over_the_wire(payload: dict[str, Any]) -> dict[str, Any]:
    received = loads(dumps(payload))
    assert isinstance(received, dict)
    return received


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(make_celery(SETTINGS), SETTINGS)


def run(
    runtime: Runtime, payload: dict[str, Any], *parents: Any, tool: str = "kv_set", task_id: str = "task"
) -> dict[str, Any]:
    """Run a message as a worker does, after a trip through the queue's JSON."""
    request = SimpleNamespace(id=task_id, delivery_info={})
    return runtime.run_operation(request, TOOLS[tool], parents, over_the_wire(payload))


@given(values)
def test_every_signed_value_is_verified(value: Any) -> None:
    arguments = {"namespace": "n", "key": "k", "value": value}
    payload = encode_request(check_arguments(SET, arguments), deadline=1.5, persona="p")
    sent = sign_payload(KEY, SET.task_name, payload)
    by_hand = sign_payload(KEY, SET.task_name, {**arguments, "v": 1, "deadline": 1.5, "persona": "p"})
    assert over_the_wire(sent) == over_the_wire(by_hand)
    received = over_the_wire(sent)
    assert repr(received["value"]) == repr(value)
    assert is_signed(KEY, SET.task_name, received)
    assert not is_signed(OTHER_KEY, SET.task_name, received)


CHANGES: dict[str, dict[str, Any]] = {
    "namespace": {"namespace": "m"},
    "key": {"key": "l"},
    "value": {"value": {"a": 2, "b": [True, None, 0.5, "é"]}},
    "order of a value's keys": {"value": {"b": [True, None, 0.5, "é"], "a": 1}},
    "type within a value": {"value": {"a": 1.0, "b": [True, None, 0.5, "é"]}},
    "truth within a value": {"value": {"a": 1, "b": [1, None, 0.5, "é"]}},
    "a value that is its text": {"value": '{"a":1,"b":[true,null,0.5,"é"]}'},
    "ttl": {"ttl_seconds": 6.0},
    "operation id": {"idempotency_key": "j"},
    "persona": {"persona": "reader"},
    "no persona": {"persona": None},
    "deadline": {"deadline": 4_000_000_001.25},
    "version": {"v": 2},
    "one more argument": {"if_absent": True},
    "something unknown": {"unknown": 1},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_any_change_is_refused_and_changes_nothing(runtime: Runtime, changes: dict[str, Any]) -> None:
    signed = sign_payload(KEY, SET.task_name, PAYLOAD)
    with pytest.raises(PolicyDeniedError) as caught:
        run(runtime, {**signed, **changes})
    assert caught.value.detail == UNSIGNED
    assert runtime.adapters.of().total_usage().entry_count == 0
    assert run(runtime, signed)["replayed"] is False


@pytest.mark.parametrize("name", PAYLOAD)
def test_no_argument_can_be_removed(name: str) -> None:
    signed = sign_payload(KEY, SET.task_name, PAYLOAD)
    assert is_signed(KEY, SET.task_name, signed)
    assert not is_signed(KEY, SET.task_name, {key: value for key, value in signed.items() if key != name})


def test_a_signature_is_valid_for_one_task() -> None:
    signed = sign_payload(KEY, "kvworker.kv_touch", PAYLOAD)
    assert is_signed(KEY, "kvworker.kv_touch", signed)
    assert not is_signed(KEY, "kvworker.kv_delete", signed)


@pytest.mark.parametrize("signature", [None, "", 5, True, ["x"], {}, "é" * 64, "\ud800", "0" * 64])
def test_an_invalid_signature_is_refused(runtime: Runtime, signature: object) -> None:
    assert not is_signed(KEY, SET.task_name, {**PAYLOAD, "signature": signature})
    with pytest.raises(PolicyDeniedError, match="signature"):
        run(runtime, {**PAYLOAD, "signature": signature})


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [datetime.now(UTC), b"bytes", object(), {1, 2}, {(1,): 2}, nested(100_000)], ids=type)
def test_a_value_that_is_not_json_is_neither_signed_nor_verified(value: object) -> None:
    with pytest.raises(ValueSerializationError, match="not JSON"):
        sign_payload(KEY, SET.task_name, {**PAYLOAD, "value": value})
    assert not is_signed(KEY, SET.task_name, {**PAYLOAD, "value": value, "signature": "0" * 64})


@pytest.mark.parametrize(
    "payload",
    [
        {"namespace": "n", "key": "k", "value": 1},
        {"namespace": "n", "key": "k", "value": 1, "persona": "writer"},
        sign_payload(OTHER_KEY, SET.task_name, PAYLOAD),
        {"namespace": ["no"], "key": "k", "persona": {"no": 1}},
        {},
    ],
    ids=["by hand", "by hand, with a persona", "another key", "no names", "nothing"],
)
def test_a_worker_with_a_key_refuses_messages_that_it_did_not_sign(
    runtime: Runtime, payload: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(PolicyDeniedError, match=r"policies\.signing_key") as caught:
        run(runtime, payload)
    names = (payload.get("persona"), payload.get("namespace"))
    assert (caught.value.persona, caught.value.namespace) == tuple(n if isinstance(n, str) else "" for n in names)
    assert [record.name for record in caplog.records] == ["kvworker.tools.policy"]
    assert KEY not in f"{caplog.text} {caught.value} {caught.value.args}"


def test_a_worker_accepts_a_previous_key_while_callers_change_theirs() -> None:
    changing = {"signing_key": KEY, "previous_signing_keys": [OTHER_KEY]}
    settings = Settings.from_mapping({**BASE, "policies": {**changing, "personas": PERSONAS}})
    signer = MessageSigner(settings.policies)
    for key in (KEY, OTHER_KEY):
        signer.authenticate(SET, sign_payload(key, SET.task_name, PAYLOAD))
    with pytest.raises(PolicyDeniedError, match=r"policies\.signing_key"):
        signer.authenticate(SET, sign_payload("a-key-of-nobody-here", SET.task_name, PAYLOAD))
    assert is_signed(KEY, SET.task_name, signer.sign(SET, dict(PAYLOAD))), "it signs with the new one"


def test_a_signature_grants_no_rights(runtime: Runtime) -> None:
    arguments = {"namespace": "n", "key": "k", "value": 1}
    with pytest.raises(PolicyDeniedError, match="kv_store_write"):
        run(runtime, sign_payload(KEY, SET.task_name, {**arguments, "persona": "reader"}))
    with pytest.raises(PolicyDeniedError, match="name a persona"):
        run(runtime, sign_payload(KEY, SET.task_name, arguments))
    assert run(runtime, sign_payload(KEY, SET.task_name, {**arguments, "persona": "writer"}))["value"] == 1


def test_a_key_without_personas_requires_only_signatures() -> None:
    settings = Settings.from_mapping({**BASE, "policies": {"signing_key": KEY}})
    runtime = Runtime(make_celery(settings), settings)
    arguments = {"namespace": "n", "key": "k", "value": 1}
    assert run(runtime, sign_payload(KEY, SET.task_name, arguments))["value"] == 1
    with pytest.raises(PolicyDeniedError, match="signature"):
        run(runtime, arguments)
    assert InlineKeyValueStore(settings).set("n", "k", 1).value == 1


def test_without_a_key_messages_stay_unsigned_and_signed_ones_are_accepted() -> None:
    settings = Settings.from_mapping({**BASE, "policies": {"personas": PERSONAS}})
    arguments = check_arguments(SET, {"namespace": "n", "key": "k", "value": 1})
    payload = encode_request(arguments, deadline=None, persona="writer")
    assert MessageSigner(settings.policies).sign(SET, payload, operation_id="task") == payload
    runtime = Runtime(make_celery(settings), settings)
    assert run(runtime, sign_payload(KEY, SET.task_name, payload))["value"] == 1


def test_a_copy_under_another_task_id_is_the_same_operation(runtime: Runtime) -> None:
    tool, signer = TOOLS["kv_increment"], MessageSigner(SETTINGS.policies)
    payload = encode_request({"namespace": "n", "key": "c"}, deadline=time.time() + 60, persona="writer")
    sent = signer.sign(tool, payload, operation_id="task-1")
    results = [run(runtime, sent, tool=tool.name, task_id=f"task-{number}") for number in (1, 2, 3)]
    assert [(result["value"], result["replayed"]) for result in results] == [(1, False), (1, True), (1, True)]
    late = signer.sign(tool, {**payload, "deadline": time.time() - 1}, operation_id="task-4")
    with pytest.raises(OperationExpiredError, match="task-4"):
        run(runtime, late, tool=tool.name, task_id="task-5")


def test_the_callers_operation_id_is_kept_and_reads_get_none() -> None:
    signer = MessageSigner(SETTINGS.policies)
    assert signer.sign(SET, dict(PAYLOAD), operation_id="task")["idempotency_key"] == "i"
    read = signer.sign(TOOLS["kv_get"], {"namespace": "n", "key": "k"}, operation_id="task")
    assert set(read) == {"namespace", "key", "signature"}


def test_celery_signatures_are_signed_except_for_the_previous_tasks_value(runtime: Runtime) -> None:
    with KeyValueStore(SETTINGS, "writer") as store:
        arguments = {"namespace": "n", "key": "k", "idempotency_key": "step-1"}
        step = store.signature("kv_set", arguments)
        whole = store.signature("kv_set", {**arguments, "value": {"__type__": "datetime", "__value__": "x"}})
    assert run(runtime, step.kwargs, {"from": "the parent"})["value"] == {"from": "the parent"}
    with pytest.raises(PolicyDeniedError, match="signature"):
        run(runtime, {**step.kwargs, "key": "l"}, 1)
    with pytest.raises(PolicyDeniedError, match="signature"):
        run(runtime, {**step.kwargs, "value": 1})
    whole.kwargs["idempotency_key"] = "step-2"
    with pytest.raises(PolicyDeniedError, match="signature"):
        run(runtime, whole.kwargs)
    whole.kwargs["idempotency_key"] = "step-1"
    assert is_signed(KEY, SET.task_name, over_the_wire(whole.kwargs))
