"""The checks of a call's arguments: numbers from programs without integers, and null for a missing argument."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker import InvalidRequestError
from kvworker.tools import TOOLS, Tool, check_arguments

_INTEGERS = [
    (tool.name, parameter.name)
    for tool in TOOLS.values()
    for parameter in tool.parameters
    if parameter.schema.get("type") == "integer"
]
_REQUIRED: dict[str, Any] = {
    "namespace": "n",
    "key": "k",
    "value": 1,
    "ttl_seconds": 60,
    "holder": "h",
    "limit": 10,
    "per_seconds": 60,
    "items": [1],
    "patch": {"a": None},
    "token": 7,
    "state": "done",
    "operations": [],
}


def _arguments(tool: Tool, **given: object) -> dict[str, Any]:
    operations = [{"tool": "kv_get", "key": "k"}]
    return {name: operations if name == "operations" else _REQUIRED[name] for name in tool.required} | given


@pytest.mark.parametrize(("tool_name", "name"), _INTEGERS)
def test_a_float_without_a_fraction_is_an_integer(tool_name: str, name: str) -> None:
    tool = TOOLS[tool_name]
    checked = check_arguments(tool, _arguments(tool, **{name: 7.0}))[name]
    assert (checked, type(checked)) == (7, int)
    for wrong in (7.5, float("inf"), float("nan"), "7", True, 2.0**63):
        with pytest.raises(InvalidRequestError, match=name):
            check_arguments(tool, _arguments(tool, **{name: wrong}))


@pytest.mark.parametrize("number", [2**53, -(2**53)])
def test_only_floats_that_stand_for_one_integer_are_taken(number: int) -> None:
    tool = TOOLS["kv_increment"]
    assert check_arguments(tool, _arguments(tool, delta=float(number)))["delta"] == number
    with pytest.raises(InvalidRequestError, match="delta"):
        check_arguments(tool, _arguments(tool, delta=float(2 * number)))
    assert check_arguments(tool, _arguments(tool, delta=number * 2))["delta"] == 2 * number


def test_a_default_given_as_a_float_is_left_out_like_the_default_itself() -> None:
    tool = TOOLS["kv_increment"]
    assert check_arguments(tool, _arguments(tool, delta=1.0)) == check_arguments(tool, _arguments(tool))


def test_the_operations_of_a_batch_take_them_too() -> None:
    operations = [{"tool": "kv_increment", "key": "k", "delta": 2.0, "ttl_seconds": None}]
    checked = check_arguments(TOOLS["kv_batch"], {"namespace": "n", "operations": operations})["operations"]
    assert checked == [{"tool": "kv_increment", "key": "k", "delta": 2}]
    assert type(checked[0]["delta"]) is int


def test_a_value_to_store_keeps_its_type() -> None:
    stored = check_arguments(TOOLS["kv_set"], {"namespace": "n", "key": "k", "value": 2.0})["value"].value
    assert (stored, type(stored)) == (2.0, float)


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())
def test_null_is_a_missing_argument_if_it_is_optional(tool: Tool) -> None:
    given = _arguments(tool)
    assert check_arguments(tool, {**dict.fromkeys(tool.optional), **given}) == check_arguments(tool, given)
