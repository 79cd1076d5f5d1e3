"""Helpers for the tests of both MCP transports: the server's command, and a session that uses every tool."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import yaml
from mcp import Client
from mcp.types import CallToolResult, TextContent

from kvworker.tools import TOOLS

T = TypeVar("T")


def server_arguments(config: Path, *options: str) -> list[str]:
    return ["mcp", "--config", str(config), *options]


def server_command(config: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "kvworker", *server_arguments(config, *options)]


def write_config(directory: Path, **blocks: object) -> Path:
    """Write a configuration whose servers are unreachable, for decisions made before anything is sent."""
    path = directory / "unreachable.yaml"
    path.write_text(yaml.safe_dump({"queue": {"broker_url": "redis://127.0.0.1:1/0"}, **blocks}))
    return path


def run_within(session: Coroutine[Any, Any, T], *, timeout_seconds: float = 30) -> T:
    async def bounded() -> T:
        return await asyncio.wait_for(session, timeout_seconds)

    return asyncio.run(bounded())


def text_of(result: CallToolResult) -> Any:
    (content,) = result.content
    assert isinstance(content, TextContent)
    return json.loads(content.text)


async def use(client: Client, name: str, **arguments: Any) -> Any:
    """Return the tool's structured result, which the SDK's client has checked against the output schema."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, text_of(result)
    assert result.structured_content == text_of(result)
    return result.structured_content


async def fail(client: Client, name: str, **arguments: Any) -> Any:
    """Return the error of a failed call."""
    result = await client.call_tool(name, arguments)
    assert result.is_error
    assert result.structured_content is None
    return text_of(result)["error"]


async def use_every_tool(client: Client) -> None:
    listed = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(listed) == list(TOOLS)
    for name, tool in listed.items():
        hints = tool.annotations
        assert hints is not None
        assert hints.read_only_hint == (TOOLS[name].side_effects == "none")
        assert hints.destructive_hint == (TOOLS[name].side_effects == "destructive")
        assert hints.idempotent_hint == TOOLS[name].repeatable
        assert hints.open_world_hint is False
        assert tool.output_schema is not None
    value = {"big": 2**70, "null": None, "nul": "\u0000", "ü": [0.1, {}]}
    written = await use(client, "kv_set", namespace="n", key="k", value_json=json.dumps(value), ttl_seconds=60)
    read = await use(client, "kv_get", namespace="n", key="k")
    assert (read["value"], read["version"]) == (value, written["version"])
    once = {"namespace": "n", "key": "c", "idempotency_key": f"after {written['version']}"}
    counted = await use(client, "kv_increment", **once)
    assert await use(client, "kv_increment", **once) == {**counted, "replayed": True}
    assert (await use(client, "kv_touch", namespace="n", key="c", ttl_seconds=60))["ttl_seconds"] == 60
    assert "ttl_seconds" not in await use(client, "kv_persist", namespace="n", key="c")
    lease = {"namespace": "n", "key": "l", "holder": "me"}
    token = (await use(client, "kv_acquire_permit", **lease, ttl_seconds=60))["token"]
    assert (await use(client, "kv_renew_permit", **lease, ttl_seconds=60, token=token))["token"] == token
    assert (await use(client, "kv_release_permit", **lease))["released"] is True
    allowed = [await use(client, "kv_rate_limit", namespace="n", key="r", limit=1, per_seconds=60) for _ in range(2)]
    assert [answer["allowed"] for answer in allowed] == [True, False]
    assert (await use(client, "kv_delete", namespace="n", key="r"))["deleted"] is True
    appended = await use(client, "kv_append", namespace="n", key="l", items_json='["a", 2.0]', max_items=1)
    assert (appended["length"], appended["dropped"]) == (1, 1)
    patch = '{"a": null, "b": {"c": 1.0}}'
    assert "version" in await use(client, "kv_merge", namespace="n", key="m", patch_json=patch)
    taken = await use(client, "kv_get_and_delete", namespace="n", key="m")
    assert (taken["found"], taken["value"]) == (True, {"b": {"c": 1.0}})
    assert (await use(client, "kv_get_and_delete", namespace="n", key="m"))["found"] is False
    await use_a_durable_step(client)
    keys = await use(client, "kv_list_keys", namespace="n", include_values=True)
    assert [entry["value"] for entry in keys["entries"]] == [1, value, [2.0]]
    spaces = await use(client, "kv_list_namespaces", limit=1)
    assert [usage["namespace"] for usage in spaces["namespaces"]] == ["n"]
    operations = [{"tool": "kv_delete", "key": "c"}, {"tool": "kv_increment", "key": "k", "delta": 1.0}]
    batch = await use(client, "kv_batch", namespace="n", operations=operations, atomic=False)
    assert [step["tool"] for step in batch["results"]] == ["kv_delete", "kv_increment"]
    assert batch["results"][1]["error"]["type"] == "InvalidValueTypeError"
    for key in ("k", "l"):
        assert (await use(client, "kv_delete", namespace="n", key=key))["deleted"] is True
    assert (await use(client, "kv_set_quota", namespace="n", quota_bytes=10))["quota_bytes"] == 10
    await meet_errors(client, written["version"])
    assert (await use(client, "kv_set_quota", namespace="n", quota_bytes=None))["quota_bytes"] is None
    assert (await use(client, "kv_clear", namespace="n"))["deleted_entries"] == 0
    assert (await use(client, "kv_usage", namespace="n"))["used_bytes"] == 0


async def use_a_durable_step(client: Client) -> None:
    step = {"namespace": "charges", "key": "o-17"}
    begun = await use(client, "kv_step_begin", **step, holder="agent", arguments_json='{"cents": 990}')
    assert begun["state"] == "reserved"
    held = {**step, "token": begun["token"]}
    assert (await use(client, "kv_step_renew", **held, lease_seconds=30))["lease_seconds"] <= 30
    assert (await fail(client, "kv_step_begin", **step, arguments_json="500"))["type"] == "StepConflictError"
    assert (await use(client, "kv_step_finish", **held, state="done", value_json='{"id": 1}'))["state"] == "done"
    assert (await use(client, "kv_step_status", **step))["value"] == {"id": 1}
    assert (await fail(client, "kv_step_renew", **held))["type"] == "StepLostError"
    await use(client, "kv_clear", namespace="charges")


async def meet_errors(client: Client, version: int) -> None:
    conflict = await fail(client, "kv_set", namespace="n", key="k", value=1, expected_version=version)
    assert (conflict["type"], conflict["changed"]) == ("VersionConflictError", "nothing")
    assert conflict["details"] == {"namespace": "n", "key": "k", "expected_version": version, "actual_version": None}
    quota = await fail(client, "kv_set", namespace="n", key="k", value="x" * 20)
    assert (quota["type"], quota["details"]["quota_bytes"]) == ("NamespaceQuotaExceededError", 10)
    assert "kv_delete" in quota["next"]
    wrong = await fail(client, "kv_get", namespace="n")
    assert (wrong["type"], wrong["message"]) == ("InvalidRequestError", "kv_get needs the argument 'key'")
