from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.json import dumps, loads

from kvworker.errors import InvalidKeyError, InvalidRequestError, OperationFailedError, UnsupportedMessageError
from kvworker.messaging.wire import (
    decode_request,
    decode_result,
    described,
    encode_request,
    encode_result,
)
from kvworker.model import EncodedValue, GetResult, SetResult
from kvworker.tools import TOOLS, check_arguments

SET, GET, INCREMENT = TOOLS["kv_set"], TOOLS["kv_get"], TOOLS["kv_increment"]

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"))
tags = st.sampled_from(["__type__", "__value__", "datetime", "bytes", "decimal", "kvworker.literal"])
values = st.recursive(
    scalars | texts | tags,
    lambda children: st.lists(children) | st.dictionaries(texts | tags, children),
    max_leaves=20,
)


def over_the_wire(data: dict[str, Any]) -> dict[str, Any]:
    received = loads(dumps(data))
    assert isinstance(received, dict)
    return received


@given(values)
def test_a_value_survives_both_ways(value: Any) -> None:
    arguments = check_arguments(SET, {"namespace": "n", "key": "k", "value": value})
    payload = over_the_wire(encode_request(arguments, deadline=12.5))
    request = decode_request(SET, (), payload, task_id="t")
    assert request.arguments == arguments
    assert repr(request.arguments["value"].value) == repr(value)
    assert (request.operation_id, request.deadline) == ("t", 12.5)
    result = SetResult("n", "k", value, 2.5, replayed=True)
    assert decode_result(SET, over_the_wire(encode_result(result)), "t") == result


@given(st.dictionaries(texts | st.sampled_from(["v", "deadline", "namespace", "key", "value"]), values))
def test_a_hostile_payload_is_refused_or_decoded(payload: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidRequestError):
        request = decode_request(SET, (), payload, task_id="t")
        assert request.arguments["namespace"] == payload["namespace"]


def test_the_callers_id_is_the_operation_id() -> None:
    payload = {"namespace": "n", "key": "k", "idempotency_key": "mine"}
    request = decode_request(INCREMENT, (), payload, task_id="t")
    assert request.operation_id == "mine"
    assert request.arguments == {"namespace": "n", "key": "k"}


def test_the_previous_tasks_result_is_the_value_to_set() -> None:
    request = decode_request(SET, ([1, 2],), {"namespace": "n", "key": "k"}, task_id="t")
    assert request.arguments["value"] == EncodedValue([1, 2], "[1,2]")
    with pytest.raises(InvalidRequestError, match="immutable"):
        decode_request(SET, (1,), {"namespace": "n", "key": "k", "value": 2}, task_id="t")
    with pytest.raises(InvalidRequestError, match="immutable"):
        decode_request(GET, ("n", "k"), {}, task_id="t")


def test_a_newer_message_is_refused() -> None:
    with pytest.raises(UnsupportedMessageError, match="upgrade the worker"):
        decode_request(GET, (), {"namespace": "n", "key": "k", "v": 2}, task_id="t")


@pytest.mark.parametrize("deadline", [True, "soon", float("inf"), float("nan"), 10**400, [1]])
def test_a_bad_deadline_is_refused(deadline: object) -> None:
    with pytest.raises(InvalidRequestError, match="deadline"):
        decode_request(GET, (), {"namespace": "n", "key": "k", "deadline": deadline}, task_id="t")


def test_null_omits_an_optional_argument() -> None:
    arguments = {"namespace": "n", "key": "k", "delta": None, "ttl_seconds": None, "idempotency_key": None}
    assert check_arguments(INCREMENT, arguments) == {"namespace": "n", "key": "k"}
    assert check_arguments(SET, {"namespace": "n", "key": "k", "value": None})["value"] == EncodedValue(None, "null")
    with pytest.raises(InvalidKeyError):
        check_arguments(GET, {"namespace": None, "key": "k"})


def test_a_default_is_not_sent() -> None:
    """So a worker that does not know an option yet takes every call that does not use it."""
    arguments = {"namespace": "n", "key": "k", "value": False, "if_absent": False, "keep_ttl": False}
    assert check_arguments(SET, arguments) == {"namespace": "n", "key": "k", "value": EncodedValue(False, "false")}
    assert check_arguments(INCREMENT, {"namespace": "n", "key": "k", "delta": 1, "initial_value": 0}) == {
        "namespace": "n",
        "key": "k",
    }
    with pytest.raises(InvalidRequestError, match="delta"):
        check_arguments(INCREMENT, {"namespace": "n", "key": "k", "delta": True})


@pytest.mark.parametrize("arguments", [None, [], "x", 1])
def test_arguments_are_an_object(arguments: Any) -> None:
    with pytest.raises(InvalidRequestError, match="must be an object"):
        check_arguments(GET, arguments)


def test_data_that_is_not_a_result_is_an_error() -> None:
    with pytest.raises(OperationFailedError, match="not a result"):
        decode_result(GET, "nonsense", "op-1")
    with pytest.raises(OperationFailedError, match="not understood"):
        decode_result(GET, {"namespace": "n"}, "op-1")


def test_a_newer_workers_result_is_understood() -> None:
    data = {"namespace": "n", "key": "k", "found": False, "colour": 7}
    assert decode_result(GET, data, "op-1") == GetResult("n", "k", found=False)


def test_a_description_omits_the_value() -> None:
    text = described(SET, {"namespace": "n", "key": "k", "value": "secret", "idempotency_key": "i"})
    assert text == "kv_set(namespace='n', key='k')"
