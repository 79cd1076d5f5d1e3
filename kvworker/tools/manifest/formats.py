"""Tool definitions as model providers and MCP take them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvworker.tools import Tool
from kvworker.tools.manifest.schemas import input_schema, output_schema
from kvworker.tools.manifest.strict import strict_schema


def openai_tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """The ``tools`` of OpenAI's Responses API, in strict mode.

    Chat Completions wants the same nested: ``{"type": "function", "function": {...}}``. Pass a call's
    arguments through ``arguments_from_strict`` before ``KeyValueStore.call``.
    """
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.summary,
            "strict": True,
            "parameters": strict_schema(tool),
        }
        for tool in tools
    ]


def anthropic_tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """The ``tools`` of Anthropic's Messages API; a call's ``input`` goes to ``KeyValueStore.call`` as it is."""
    return [{"name": tool.name, "description": tool.summary, "input_schema": input_schema(tool)} for tool in tools]


def mcp_tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """The ``tools`` of MCP's ``tools/list``, with the schema of the structured result and annotations."""
    return [
        {
            "name": tool.name,
            "description": tool.summary,
            "inputSchema": input_schema(tool),
            "outputSchema": output_schema(tool),
            "annotations": _annotations(tool),
        }
        for tool in tools
    ]


def _annotations(tool: Tool) -> dict[str, bool]:
    # Hints are fixed, so an idempotency key, which makes any single call repeatable, does not count.
    return {
        "readOnlyHint": tool.side_effects == "none",
        "destructiveHint": tool.side_effects == "destructive",
        "idempotentHint": tool.repeatable,
        "openWorldHint": False,
    }
