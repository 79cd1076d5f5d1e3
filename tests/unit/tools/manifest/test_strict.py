"""OpenAI's strict mode: schemas keep its rules, and calls convert to the tools' own arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kvworker import InvalidRequestError
from kvworker.model import EncodedValue
from kvworker.tools import TOOLS, Tool, check_arguments
from kvworker.tools.manifest import arguments_from_strict, openai_tools, strict_schema
from tests.support.tool_arguments import some_arguments

STRICT_KEYWORDS = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "description"}


def strict_problems(schema: Mapping[str, Any], path: str = "$", depth: int = 1) -> Iterator[str]:
    """Yield violations of OpenAI's strict mode, in the subset that all of its hosts accept."""
    yield from (f"{path}: {keyword} is not supported" for keyword in schema.keys() - STRICT_KEYWORDS)
    if path == "$" and schema.get("type") != "object":
        yield "$: the root must be an object"
    if "anyOf" not in schema and "type" not in schema:
        yield f"{path}: it has no type"
    if depth > 10:
        yield f"{path}: nested too deep"
    if "object" in schema.get("type", ()):
        if schema.get("additionalProperties") is not False:
            yield f"{path}: additionalProperties must be false"
        if list(schema["properties"]) != schema.get("required"):
            yield f"{path}: every property must be required"
    firsts = [str(next(iter(part["properties"].items()), None)) for part in schema.get("anyOf", ())]
    if len(set(firsts)) < len(firsts):
        yield f"{path}: the first property must tell the objects of anyOf apart"
    inner = [*schema.get("properties", {}).items(), *enumerate(schema.get("anyOf", ()))]
    inner += [("items", schema["items"])] if "items" in schema else []
    for name, part in inner:
        yield from strict_problems(part, f"{path}.{name}", depth + 1)


def test_openai_schemas_keep_the_rules_of_strict_mode() -> None:
    for definition in openai_tools(TOOLS.values()):
        assert definition["strict"] is True
        assert list(strict_problems(definition["parameters"])) == []
        # Names and enums of one schema: at most 120 000 characters, and 5000 properties.
        assert len(json.dumps(definition["parameters"])) < 20_000


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "string"}, "root"),
        ({"type": "object", "properties": {}, "required": []}, "additionalProperties"),
        (
            {"type": "object", "properties": {"a": {"type": "null"}}, "required": [], "additionalProperties": False},
            "req",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"anyOf": [{"type": "object", "properties": {"b": {"type": "null"}}}] * 2}},
                "required": ["a"],
                "additionalProperties": False,
            },
            "apart",
        ),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, "no type"),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "array", "items": {"type": "string", "minLength": 1}}},
                "required": ["a"],
                "additionalProperties": False,
            },
            "minLength",
        ),
    ],
)
def test_the_walker_finds_broken_rules(schema: dict[str, Any], problem: str) -> None:
    assert any(problem in found for found in strict_problems(schema))


def strict_form(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the strict call that a model would make for these checked arguments."""
    given = as_texts(tool, arguments)
    if "operations" in arguments:
        given["operations"] = [strict_step(operation) for operation in arguments["operations"]]
    return {name: given.get(name) for name in strict_schema(tool)["properties"]}


def as_texts(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments, with those that hold values as JSON text too; a missing one is "null"."""
    values = {parameter.name: arguments.get(parameter.name) for parameter in tool.parameters if parameter.holds_values}
    plain = {name: value.value if isinstance(value, EncodedValue) else value for name, value in values.items()}
    return {**arguments, **{f"{name}_json": json.dumps(value) for name, value in plain.items()}}


def strict_step(operation: Mapping[str, Any]) -> dict[str, Any]:
    tool = TOOLS[operation["tool"]]
    names = strict_schema(tool)["properties"].keys() - {"namespace", "idempotency_key"}
    given = as_texts(tool, operation)
    return {"tool": tool.name, **{name: given.get(name) for name in names}}


@given(data=st.data())
def test_strict_calls_convert_to_the_tools_arguments(data: st.DataObject) -> None:
    tool = data.draw(st.sampled_from(list(TOOLS.values())), label="tool")
    arguments = data.draw(some_arguments(tool), label="arguments")
    try:
        checked = check_arguments(tool, arguments)
    except InvalidRequestError:
        return
    strict = strict_form(tool, checked)
    Draft202012Validator(strict_schema(tool)).validate(strict)
    assert check_arguments(tool, arguments_from_strict(tool.name, strict)) == checked


def test_strict_descriptions_state_the_bounds_that_the_schema_may_not() -> None:
    limit = strict_schema(TOOLS["kv_list_keys"])["properties"]["limit"]
    assert limit["type"] == ["integer", "null"]
    assert limit["description"].endswith("From 1 to 1000. null means 100.")
    cursor = strict_schema(TOOLS["kv_list_keys"])["properties"]["cursor"]
    assert cursor["description"].endswith("At most 1024 bytes of UTF-8. null leaves it out.")
    assert "Above 0." in strict_schema(TOOLS["kv_touch"])["properties"]["ttl_seconds"]["description"]
    operations = strict_schema(TOOLS["kv_batch"])["properties"]["operations"]["description"]
    assert "1 to 1000 of them." in operations


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nope", {}, "unknown tool 'nope'"),
        ("kv_set", {"value_json": "{oops"}, "value_json does not hold JSON"),
        ("kv_set", {"value_json": "1" * 5000}, "value_json does not hold JSON"),
        ("kv_set", {"value_json": "[" * 100_000}, "value_json does not hold JSON"),
        ("kv_set", {"value_json": {"a": 1}}, "value_json must be a string that holds JSON, not a dict"),
        ("kv_batch", {"operations": [{"tool": "kv_get"}, {"tool": "kv_set", "value_json": "x"}]}, r"operations\[1\]"),
        ("kv_set", {"value_json": "1", "value": 2}, "value_json and value contradict each other"),
        (
            "kv_batch",
            {"operations": [{"tool": "kv_set", "value_json": "1", "value": 1}]},
            r"operations\[0\]: value_json and value contradict each other",
        ),
        ("kv_set", None, "the arguments of kv_set must be an object, not a NoneType"),
        ("kv_set", 5, "must be an object, not a int"),
        ("kv_get", "x", "the arguments of kv_get must be an object, not a str"),
        ("kv_get", [["namespace", "n"]], "must be an object, not a list"),
    ],
)
def test_an_invalid_strict_call_is_refused(name: str, arguments: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        arguments_from_strict(name, arguments)


def test_nulls_of_another_tool_are_left_out_of_an_operation() -> None:
    get = {"tool": "kv_get", "key": "k", "delta": None, "value_json": None, "nonsense": None}
    increment = {"tool": "kv_increment", "key": "k", "delta": 2, "value_json": None, "ttl_seconds": None}
    converted = arguments_from_strict("kv_batch", {"namespace": "n", "operations": [get, increment]})["operations"]
    assert converted == [
        {"tool": "kv_get", "key": "k", "nonsense": None},
        {"tool": "kv_increment", "key": "k", "delta": 2},
    ]


@pytest.mark.parametrize("operations", [None, 7, [7], [None], [{}], [{"tool": 7}], [{"tool": "nope"}]])
def test_a_malformed_batch_is_left_to_the_check(operations: object) -> None:
    arguments = {"namespace": "n", "operations": operations}
    assert arguments_from_strict("kv_batch", arguments) == arguments
