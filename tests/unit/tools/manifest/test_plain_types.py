"""Every argument has one plain type, in each format for clients and models that go by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kvworker import InlineKeyValueStore, InvalidRequestError
from kvworker.model import EncodedValue
from kvworker.tools import TOOLS, Tool, check_arguments
from kvworker.tools.manifest import (
    anthropic_tools,
    arguments_from_strict,
    gemini_schema,
    gemini_tools,
    input_schema,
    mcp_tools,
    plain_schema,
)
from tests.support.tool_arguments import some_arguments

PLAIN_TYPES = {"string", "number", "integer", "boolean", "array", "object"}
#: The keywords of Gemini's ``Schema`` in all of its hosts. google-genai 3.6 refuses others before it sends them.
GEMINI_KEYWORDS = {"type", "description", "enum", "items", "properties", "required"}

Render = Callable[[Tool], dict[str, Any]]


def properties_of(schema: Mapping[str, Any], path: str = "$") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every property and every item of a schema, with its path."""
    parts = [*schema.get("properties", {}).items(), *enumerate(schema.get("anyOf", ()))]
    parts += [("items", schema["items"])] if "items" in schema else []
    for name, part in parts:
        if "anyOf" not in part:
            yield f"{path}.{name}", part
        yield from properties_of(part, f"{path}.{name}")


@pytest.mark.parametrize("render", [plain_schema, gemini_schema])
@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())
def test_every_argument_has_one_plain_type(tool: Tool, render: Render) -> None:
    for path, part in properties_of(render(tool)):
        assert part.get("type") in PLAIN_TYPES, path


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())
def test_only_a_value_has_no_type_for_models_that_take_any_json(tool: Tool) -> None:
    for path, part in properties_of(input_schema(tool)):
        assert part.get("type") in PLAIN_TYPES or path.endswith((".value", ".arguments", ".patch")), path


def test_the_formats_use_these_schemas() -> None:
    for tool in TOOLS.values():
        assert mcp_tools([tool])[0]["inputSchema"] == plain_schema(tool)
        assert gemini_tools([tool])[0]["parameters"] == gemini_schema(tool)
        assert anthropic_tools([tool])[0]["input_schema"] == input_schema(tool)


@pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())
def test_gemini_schemas_have_only_what_gemini_takes(tool: Tool) -> None:
    schema = gemini_schema(tool)
    for path, part in [("$", schema), *properties_of(schema)]:
        assert part.keys() <= GEMINI_KEYWORDS, path
        assert set(part.get("required", ())) <= part.get("properties", {}).keys(), path
        assert ("items" in part) == (part["type"] == "array"), path


def test_gemini_descriptions_state_what_the_schema_may_not() -> None:
    limit = gemini_schema(TOOLS["kv_list_keys"])["properties"]["limit"]
    assert limit["description"].endswith("From 1 to 1000. Left out, it is 100.")
    operation = gemini_schema(TOOLS["kv_batch"])["properties"]["operations"]["items"]["properties"]
    assert operation["ttl_seconds"]["description"].endswith("Above 0.")
    assert "value_json" in operation


def as_gemini_sends(arguments: Any) -> Any:
    """Return arguments as Gemini's API returns them: every number is a float."""
    if isinstance(arguments, dict):
        return {name: as_gemini_sends(value) for name, value in arguments.items()}
    if isinstance(arguments, list):
        return [as_gemini_sends(value) for value in arguments]
    is_exact = isinstance(arguments, int) and not isinstance(arguments, bool) and abs(arguments) <= 2**53
    return float(arguments) if is_exact else arguments


def with_text(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return checked arguments with those that hold values as JSON text."""
    given = {n: v for n, v in arguments.items() if not isinstance(v, EncodedValue)}
    given |= {f"{n}_json": json.dumps(v.value) for n, v in arguments.items() if isinstance(v, EncodedValue)}
    if "arguments" in given:
        given["arguments_json"] = json.dumps(given.pop("arguments"))
    if "operations" in given:
        given["operations"] = [with_text(operation) for operation in given["operations"]]
    return given


@given(data=st.data(), render=st.sampled_from([plain_schema, gemini_schema]))
def test_calls_by_the_schema_convert_to_the_tools_arguments(data: st.DataObject, render: Render) -> None:
    tool = data.draw(st.sampled_from(list(TOOLS.values())), label="tool")
    arguments = data.draw(some_arguments(tool), label="arguments")
    try:
        checked = check_arguments(tool, arguments)
    except InvalidRequestError:
        return
    call = with_text(checked)
    Draft202012Validator(render(tool)).validate(call)
    if render is gemini_schema:
        call = as_gemini_sends(call)
    assert check_arguments(tool, arguments_from_strict(tool.name, call)) == checked


def as_inspector_sends(schema: Mapping[str, Any], text: str) -> Any:
    """Return the argument that MCP Inspector makes of a form's text: it goes by the type alone."""
    kind = schema.get("type")
    if kind in ("number", "integer"):
        return float(text)
    if kind == "boolean":
        return text.lower() == "true"
    return json.loads(text) if kind in ("object", "array") else text


@pytest.mark.parametrize(
    ("value_text", "stored"), [("8", 8), ('"8"', "8"), ("[1, null]", [1, None]), ("null", None), ("true", True)]
)
def test_a_client_that_goes_by_the_type_stores_what_was_meant(value_text: str, stored: object) -> None:
    form = {"namespace": "n", "key": "k", "value_json": value_text, "ttl_seconds": "60", "if_absent": "true"}
    schema = mcp_tools([TOOLS["kv_set"]])[0]["inputSchema"]
    sent = {name: as_inspector_sends(schema["properties"][name], text) for name, text in form.items()}
    with InlineKeyValueStore() as store:
        store.call("kv_set", arguments_from_strict("kv_set", sent))
        found = store.get("n", "k")
    assert (found.value, type(found.value)) == (stored, type(stored))
    assert found.ttl_seconds == pytest.approx(60, abs=30)
