"""The MCP server without a transport: values too deep for MCP, and personas without access."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mcp.types import CallToolRequestParams, TextContent
from mcp_types.version import LATEST_MODERN_VERSION

from kvworker import ConfigurationError, InlineKeyValueStore, Settings
from kvworker.integrations.mcp.audience import Audience
from kvworker.integrations.mcp.scope import Scope
from kvworker.integrations.mcp.server import Caller, Context, ToolHandlers, make_server
from kvworker.model import JSONValue, OperationResult
from kvworker.tools import TOOLS, Tool

Call = Callable[..., tuple[bool, Any]]

DEEPEST = 125
FLAGS = ["type.system.kv_store_access", "type.system.kv_store_write"]


class _Awaited:
    """A store in this process with the asynchronous method that the server calls."""

    def __init__(self, store: InlineKeyValueStore) -> None:
        self._store = store

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        return self._store.call_tool(tool, arguments, timeout)


@pytest.fixture
def store() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as store:
        store.set("n", "deep", nested(200))
        store.set("n", "shallow", nested(DEEPEST))
        yield store


@pytest.fixture
def call(store: InlineKeyValueStore) -> Call:
    """Return a function that calls a tool and returns whether it failed, and its data. Text and structure agree."""
    handlers = ToolHandlers(lambda _context: Caller(_Awaited(store), Scope(), tuple(TOOLS)))

    def called(name: str, **arguments: Any) -> tuple[bool, Any]:
        params = CallToolRequestParams(name=name, arguments=arguments)
        context = SimpleNamespace(protocol_version=LATEST_MODERN_VERSION, request=None, request_id=1)
        result = asyncio.run(handlers.call_tool(cast(Context, context), params))
        (content,) = result.content
        assert isinstance(content, TextContent)
        told = json.loads(content.text)
        assert result.structured_content == (None if result.is_error else told)
        return bool(result.is_error), told

    return called


def nested(levels: int) -> JSONValue:
    value: JSONValue = 1
    for _ in range(levels):
        value = [value]
    return value


def operations(*keys: str) -> list[dict[str, Any]]:
    return [{"tool": "kv_get", "key": key} for key in keys]


class TestDepth:
    @pytest.mark.parametrize(
        ("name", "arguments"),
        [("kv_get", {"key": "deep"}), ("kv_list_keys", {"include_values": True})],
    )
    def test_reading_a_value_that_is_too_deep_is_an_error(
        self, call: Call, name: str, arguments: dict[str, Any]
    ) -> None:
        failed, told = call(name, namespace="n", **arguments)
        assert failed
        assert told["error"]["type"] == "ResultTooDeepError"
        assert "deeper than the 128 levels" in told["error"]["message"]
        assert told["error"]["changed"] == "nothing"
        assert "include_values" in told["error"]["next"]

    def test_a_batch_with_a_deep_result_is_applied_and_the_error_says_so(
        self, call: Call, store: InlineKeyValueStore
    ) -> None:
        steps = [*operations("deep"), {"tool": "kv_delete", "key": "shallow"}]
        failed, told = call("kv_batch", namespace="n", operations=steps)
        assert (failed, told["error"]["changed"]) == (True, "what was asked for")
        assert "kv_batch was done" in told["error"]["message"]
        assert store.get("n", "shallow").found is False

    def test_values_as_deep_as_the_instructions_say_are_carried(self, call: Call, store: InlineKeyValueStore) -> None:
        instructions = make_server(lambda _context: Caller(_Awaited(store), Scope(), tuple(TOOLS))).instructions
        assert f"up to {DEEPEST} nested" in str(instructions)
        store.delete("n", "deep")
        for name, arguments in (
            ("kv_get", {"key": "shallow"}),
            ("kv_set", {"key": "k", "value": nested(DEEPEST)}),
            ("kv_list_keys", {"include_values": True}),
            ("kv_batch", {"operations": operations("shallow")}),
            ("kv_batch", {"operations": [{"tool": "kv_set", "key": "k", "value": nested(DEEPEST)}]}),
        ):
            assert call(name, namespace="n", **arguments)[0] is False

    def test_a_value_too_deep_to_read_back_is_not_stored(self, call: Call, store: InlineKeyValueStore) -> None:
        failed, told = call("kv_set", namespace="n", key="k", value=nested(200))
        assert (failed, told["error"]["type"]) == (True, "ValueSerializationError")
        assert told["error"]["changed"] == "nothing"
        assert store.get("n", "k").found is False


def settings_of(namespaces: dict[str, list[str]] | None) -> Settings:
    return Settings.from_mapping({"policies": {"personas": {"p": {"flags": FLAGS, "namespaces": namespaces}}}})


class TestPersonas:
    @pytest.mark.parametrize(
        ("audience", "patterns", "suggested"),
        [
            (Audience("p", "agent"), ["notes"], r"'agent/\*'"),
            (Audience("p", "agent"), ["agent", "agents/*"], r"'agent/\*'"),
            (Audience("p", "agent"), [], r"'agent/\*'"),
            (Audience("p", own_namespaces=True), ["notes", "mcp-session"], r"'mcp-session-\*'"),
        ],
    )
    def test_a_persona_without_access_is_refused(self, audience: Audience, patterns: list[str], suggested: str) -> None:
        with pytest.raises(ConfigurationError, match=f"whole names, so it needs one such as {suggested}"):
            audience.tools(settings_of({pattern: ["read"] for pattern in patterns}))

    @pytest.mark.parametrize("pattern", ["agent/*", "agent/notes", "a*", "*", "*/notes", "agent/n*s"])
    def test_a_persona_that_may_have_access_is_served(self, pattern: str) -> None:
        assert "kv_get" in Audience("p", "agent").tools(settings_of({"other": ["read"], pattern: ["read"]}))

    @pytest.mark.parametrize("pattern", ["mcp-session-*", "mcp-session-0*", "mcp*", "*/notes", "*"])
    def test_a_persona_that_may_have_access_to_sessions_is_served(self, pattern: str) -> None:
        assert "kv_get" in Audience("p", own_namespaces=True).tools(settings_of({pattern: ["read"]}))

    def test_without_patterns_or_a_prefix_access_is_not_checked(self) -> None:
        assert Audience("p").tools(settings_of({"notes": ["read", "write"]}))
        unrestricted = Settings.from_mapping({"policies": {"personas": {"p": {"flags": FLAGS}}}})
        assert Audience("p", "agent").tools(unrestricted)
