"""The rendered definitions are valid schemas and fit real calls and results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kvworker import InlineKeyValueStore, InvalidRequestError, KVStoreError, Settings
from kvworker.tools import TOOLS, Tool, check_arguments
from kvworker.tools.manifest import (
    anthropic_tools,
    gemini_schema,
    gemini_tools,
    input_schema,
    manifest_entries,
    mcp_tools,
    openai_tools,
    output_schema,
    plain_schema,
    strict_schema,
    tools_of,
)
from tests.support.tool_arguments import some_arguments

every_tool = pytest.mark.parametrize("tool", TOOLS.values(), ids=TOOLS.keys())


def is_valid(schema: Mapping[str, Any], instance: object) -> bool:
    return bool(Draft202012Validator(schema).is_valid(instance))


def without_nulls(tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the optional arguments that are null, in the operations of a batch too."""
    given = {name: value for name, value in arguments.items() if value is not None or name in tool.required}
    for operation in given.get("operations", ()):
        optional = TOOLS[operation["tool"]].optional
        for name in [name for name in optional if operation.get(name, ...) is None]:
            del operation[name]
    return given


@every_tool
def test_schemas_are_json_schema(tool: Tool) -> None:
    for schema in (
        input_schema(tool),
        plain_schema(tool),
        output_schema(tool),
        strict_schema(tool),
        gemini_schema(tool),
    ):
        Draft202012Validator.check_schema(schema)
        assert schema["type"] == "object"
        assert json.loads(json.dumps(schema)) == schema


@every_tool
def test_every_argument_is_described_in_every_rendering(tool: Tool) -> None:
    for schema in (input_schema(tool), plain_schema(tool), strict_schema(tool), gemini_schema(tool)):
        assert all(argument["description"].strip() for argument in schema["properties"].values())
    assert all(field["description"] for field in output_schema(tool)["properties"].values())


@given(data=st.data())
def test_every_accepted_call_is_valid(data: st.DataObject) -> None:
    tool = data.draw(st.sampled_from(list(TOOLS.values())), label="tool")
    arguments = data.draw(some_arguments(tool), label="arguments")
    try:
        check_arguments(tool, arguments)
    except InvalidRequestError:
        return
    Draft202012Validator(input_schema(tool)).validate(without_nulls(tool, arguments))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("kv_get", {"namespace": "n"}),
        ("kv_get", {"namespace": "", "key": "k"}),
        ("kv_get", {"namespace": "n" * 256, "key": "k"}),
        ("kv_get", {"namespace": None, "key": "k"}),
        ("kv_get", {"namespace": "n", "key": "k", "value": 1}),
        ("kv_set", {"namespace": "n", "key": "k"}),
        ("kv_set", {"namespace": "n", "key": "k", "value": 1, "ttl_seconds": 0}),
        ("kv_set", {"namespace": "n", "key": "k", "value": 1, "ttl_seconds": True}),
        ("kv_set", {"namespace": "n", "key": "k", "value": 1, "if_absent": 1}),
        ("kv_touch", {"namespace": "n", "key": "k"}),
        ("kv_touch", {"namespace": "n", "key": "k", "ttl_seconds": None}),
        ("kv_append", {"namespace": "n", "key": "k", "items": []}),
        ("kv_append", {"namespace": "n", "key": "k", "items": "text"}),
        ("kv_append", {"namespace": "n", "key": "k", "items": [1], "max_items": 0}),
        ("kv_merge", {"namespace": "n", "key": "k"}),
        ("kv_increment", {"namespace": "n", "key": "k", "delta": 0.5}),
        ("kv_increment", {"namespace": "n", "key": "k", "delta": 2**63}),
        ("kv_acquire_permit", {"namespace": "n", "key": "k", "holder": "h"}),
        ("kv_acquire_permit", {"namespace": "n", "key": "k", "holder": "h", "ttl_seconds": 5, "permits": 1001}),
        ("kv_renew_permit", {"namespace": "n", "key": "k", "holder": "h", "ttl_seconds": 5, "token": 0}),
        ("kv_release_permit", {"namespace": "n", "key": "k", "holder": ""}),
        ("kv_rate_limit", {"namespace": "n", "key": "k", "limit": 1, "per_seconds": 0}),
        ("kv_rate_limit", {"namespace": "n", "key": "k", "limit": 1, "per_seconds": 1, "quantity": 0}),
        ("kv_list_keys", {"namespace": "n", "limit": 1001}),
        ("kv_set_quota", {"namespace": "n", "quota_bytes": 0}),
        ("kv_batch", {"namespace": "n", "operations": []}),
        ("kv_batch", {"namespace": "n", "operations": [{"tool": "kv_get", "key": "k"}] * 1001}),
        ("kv_batch", {"namespace": "n", "operations": [{"key": "k"}]}),
        ("kv_batch", {"namespace": "n", "operations": [{"tool": "kv_usage"}]}),
        ("kv_batch", {"namespace": "n", "operations": [{"tool": "kv_get", "namespace": "n", "key": "k"}]}),
        ("kv_batch", {"namespace": "n", "operations": [{"tool": "kv_get", "key": "k", "value": 1}]}),
    ],
)
def test_these_refused_calls_are_not_valid(name: str, arguments: dict[str, Any]) -> None:
    assert not is_valid(input_schema(TOOLS[name]), arguments)
    with pytest.raises(InvalidRequestError):
        check_arguments(TOOLS[name], arguments)


def test_real_results_are_valid() -> None:
    steps = [
        {"tool": "kv_set", "key": "k", "value": [1]},
        {"tool": "kv_get", "key": "k"},
        {"tool": "kv_get", "key": "missing"},
        {"tool": "kv_increment", "key": "c", "ttl_seconds": 60},
        {"tool": "kv_touch", "key": "c", "ttl_seconds": 60},
        {"tool": "kv_persist", "key": "c"},
        {"tool": "kv_acquire_permit", "key": "l", "holder": "h", "ttl_seconds": 60},
        {"tool": "kv_release_permit", "key": "l", "holder": "h"},
        {"tool": "kv_renew_permit", "key": "l", "holder": "h", "ttl_seconds": 60},
        {"tool": "kv_rate_limit", "key": "r", "limit": 1, "per_seconds": 60},
        {"tool": "kv_increment", "key": "k"},
        {"tool": "kv_append", "key": "k", "items": [2], "max_items": 1},
        {"tool": "kv_merge", "key": "o", "patch": {"a": None}},
        {"tool": "kv_get_and_delete", "key": "o"},
        {"tool": "kv_get_and_delete", "key": "o"},
        {"tool": "kv_set", "key": "k", "value": 1, "if_absent": True},
        {"tool": "kv_delete", "key": "k"},
        {"tool": "kv_step_begin", "key": "step"},
        {"tool": "kv_step_begin", "key": "ended"},
        {"tool": "kv_step_renew", "key": "held", "token": 7},
        {"tool": "kv_step_finish", "key": "held", "token": 7, "state": "failed"},
    ]
    calls: list[tuple[str, dict[str, Any]]] = [
        ("kv_set", {"namespace": "n", "key": "k", "value": None, "ttl_seconds": 60, "idempotency_key": "one"}),
        ("kv_get", {"namespace": "n", "key": "k"}),
        ("kv_get", {"namespace": "n", "key": "missing"}),
        ("kv_increment", {"namespace": "n", "key": "c"}),
        ("kv_touch", {"namespace": "n", "key": "c", "ttl_seconds": 0.5}),
        ("kv_touch", {"namespace": "n", "key": "missing", "ttl_seconds": 60}),
        ("kv_persist", {"namespace": "n", "key": "c"}),
        ("kv_acquire_permit", {"namespace": "n", "key": "l", "holder": "h", "ttl_seconds": 60}),
        ("kv_acquire_permit", {"namespace": "n", "key": "l", "holder": "other", "ttl_seconds": 60}),
        ("kv_renew_permit", {"namespace": "n", "key": "l", "holder": "h", "ttl_seconds": 60}),
        ("kv_release_permit", {"namespace": "n", "key": "l", "holder": "h"}),
        ("kv_release_permit", {"namespace": "n", "key": "l", "holder": "h"}),
        ("kv_rate_limit", {"namespace": "n", "key": "r", "limit": 1, "per_seconds": 60}),
        ("kv_rate_limit", {"namespace": "n", "key": "r", "limit": 1, "per_seconds": 60}),
        ("kv_append", {"namespace": "n", "key": "list", "items": [None], "ttl_seconds": 60}),
        ("kv_merge", {"namespace": "n", "key": "o", "patch": None, "ttl_seconds": 60}),
        ("kv_get_and_delete", {"namespace": "n", "key": "o"}),
        ("kv_get_and_delete", {"namespace": "n", "key": "o"}),
        ("kv_step_begin", {"namespace": "n", "key": "held"}),
        ("kv_step_renew", {"namespace": "n", "key": "held", "token": 7}),
        ("kv_step_finish", {"namespace": "n", "key": "ended", "token": 7, "state": "done", "value": [None]}),
        ("kv_step_begin", {"namespace": "n", "key": "ended"}),
        ("kv_step_status", {"namespace": "n", "key": "held"}),
        ("kv_step_status", {"namespace": "n", "key": "ended"}),
        ("kv_step_status", {"namespace": "n", "key": "missing"}),
        ("kv_list_keys", {"namespace": "n", "limit": 1, "include_values": True}),
        ("kv_list_keys", {"namespace": "n"}),
        ("kv_list_namespaces", {}),
        ("kv_set_quota", {"namespace": "n", "quota_bytes": 1000}),
        ("kv_set_quota", {"namespace": "n"}),
        ("kv_usage", {"namespace": "n"}),
        ("kv_usage", {}),
        ("kv_batch", {"namespace": "n", "operations": steps, "atomic": False}),
        ("kv_delete", {"namespace": "n", "key": "c"}),
        ("kv_clear", {"namespace": "n"}),
    ]
    assert {name for name, _ in calls} == set(TOOLS)
    with InlineKeyValueStore() as store:
        for key in ("held", "ended"):
            store.set("n", key, {"$step": 1, "state": "reserved", "token": 7})
        for name, arguments in calls:
            result = json.loads(json.dumps(store.call(name, arguments)))
            Draft202012Validator(output_schema(TOOLS[name])).validate(result)
            assert {field.name for field in TOOLS[name].result_fields if field.always} <= set(result)
            if name == "kv_batch":
                assert [step["error"]["type"] for step in result["results"] if "error" in step] == [
                    "LeaseLostError",
                    "InvalidValueTypeError",
                    "VersionConflictError",
                ]


@pytest.mark.parametrize(
    "step",
    [
        {"tool": "kv_get", "namespace": "n", "key": "k"},
        {"tool": "kv_usage", "namespace": "n", "used_bytes": 1, "entry_count": 1, "quota_bytes": 1},
        {"tool": "kv_set", "error": {"type": "VersionConflictError"}},
        {},
    ],
)
def test_the_result_of_a_step_must_fit_its_tool(step: dict[str, Any]) -> None:
    result = {"namespace": "n", "replayed": False, "results": [step]}
    assert not is_valid(output_schema(TOOLS["kv_batch"]), result)


def test_every_format_has_every_tool() -> None:
    for render in (openai_tools, anthropic_tools, gemini_tools, mcp_tools):
        assert [definition["name"] for definition in render(TOOLS.values())] == list(TOOLS)
    (definition,) = anthropic_tools([TOOLS["kv_get"]])
    assert definition.keys() == {"name", "description", "input_schema"}


def test_annotations_let_a_host_decide_without_asking() -> None:
    hints = {definition["name"]: definition["annotations"] for definition in mcp_tools(TOOLS.values())}
    read_only = {name for name, hint in hints.items() if hint["readOnlyHint"]}
    assert read_only == {"kv_get", "kv_step_status", "kv_list_keys", "kv_list_namespaces", "kv_usage"}
    assert {name for name, hint in hints.items() if hint["destructiveHint"]} == {
        "kv_set",
        "kv_delete",
        "kv_merge",
        "kv_get_and_delete",
        "kv_clear",
        "kv_batch",
    }
    assert {name for name, hint in hints.items() if not hint["idempotentHint"]} == {
        "kv_increment",
        "kv_rate_limit",
        "kv_append",
        "kv_get_and_delete",
        "kv_step_begin",
        "kv_batch",
    }
    assert not any(hint["openWorldHint"] for hint in hints.values())


def test_manifest_entries_hold_the_facts_that_a_host_needs() -> None:
    settings = Settings.from_mapping(
        {"facade": {"timeout_seconds": 7}, "maintenance": {"operation_retention_seconds": 7200}}
    )
    entries = {entry["name"]: entry for entry in manifest_entries(settings)}
    assert list(entries) == list(TOOLS)
    assert json.loads(json.dumps(entries)) == entries
    get, increment = entries["kv_get"], entries["kv_increment"]
    access, write = "type.system.kv_store_access", "type.system.kv_store_write"
    assert get["requires_flags"] == {"read": [access]}
    assert increment["requires_flags"] == {"read": [access], "write": [access, write], "execute": [access, write]}
    assert [entries[name]["side_effects"] for name in ("kv_get", "kv_increment", "kv_clear")] == [
        "none",
        "write",
        "write",
    ]
    assert get["default_timeout"] == 7
    assert get["parameters"] == input_schema(TOOLS["kv_get"])
    assert get["returns"] == output_schema(TOOLS["kv_get"])
    assert get["idempotency_key"]["supported"] is False
    assert increment["idempotency_key"]["retention_seconds"] == 7200
    assert "A call repeated without one is applied again" in increment["idempotency_key"]["guidance"]
    assert "applied once" in entries["kv_set"]["idempotency_key"]["guidance"]


def providers(settings: Settings, persona: str | None = None) -> dict[str, bool]:
    return {provider["name"]: provider["default"] for provider in manifest_entries(settings, persona)[0]["providers"]}


@pytest.mark.parametrize(
    ("kv_store", "expected"),
    [
        ({}, {"kv_store_postgres": True, "kv_store_sqlite": False}),
        ({"default_adapter": "sqlite"}, {"kv_store_sqlite": True, "kv_store_postgres": False}),
        (
            {"default_adapter": "cloud", "adapters": {"other": {"bucket": "b"}}},
            {"kv_store_cloud": True, "kv_store_postgres": False, "kv_store_sqlite": False, "kv_store_other": False},
        ),
    ],
)
def test_providers_are_the_adapters(kv_store: dict[str, Any], expected: dict[str, bool]) -> None:
    found = providers(Settings.from_mapping({"tools": {"kv_store": kv_store}}))
    assert list(found.items()) == list(expected.items())


PERSONAS = {
    "reader": {"flags": ["type.system.kv_store_access"]},
    "writer": {
        "flags": ["type.system.kv_store_access", "type.system.kv_store_write"],
        "provider": "kv_store_sqlite",
    },
    "elsewhere": {"flags": ["type.system.kv_store_access"], "provider": "cloud"},
}


def test_a_personas_manifest_has_its_tools_and_its_provider() -> None:
    settings = Settings.from_mapping({"policies": {"personas": PERSONAS}})
    assert [entry["name"] for entry in manifest_entries(settings, "reader")] == [
        "kv_get",
        "kv_step_status",
        "kv_list_keys",
        "kv_list_namespaces",
        "kv_usage",
        "kv_batch",
    ]
    assert set(TOOLS) - {tool.name for tool in tools_of(settings, "writer")} == {"kv_set_quota"}
    assert providers(settings, "reader") == {"kv_store_postgres": True, "kv_store_sqlite": False}
    assert providers(settings, "writer") == {"kv_store_postgres": False, "kv_store_sqlite": True}
    assert providers(settings, "elsewhere") == {
        "kv_store_cloud": True,
        "kv_store_postgres": False,
        "kv_store_sqlite": False,
    }


def test_the_default_persona_applies_if_none_is_named() -> None:
    settings = Settings.from_mapping({"policies": {"default_persona": "reader", "personas": PERSONAS}})
    assert "kv_set" not in {tool.name for tool in tools_of(settings)}
    assert manifest_entries(settings) == manifest_entries(settings, "reader")


@pytest.mark.parametrize("policies", [{}, {"policies": {"personas": PERSONAS}}])
def test_an_unknown_persona_is_an_error(policies: dict[str, Any]) -> None:
    with pytest.raises(KVStoreError, match="no persona is named 'nobody'"):
        manifest_entries(Settings.from_mapping(policies), "nobody")
