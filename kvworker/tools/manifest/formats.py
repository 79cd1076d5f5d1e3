"""Tool definitions in the formats of model providers and of MCP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvworker.tools import Tool
from kvworker.tools.manifest.gemini import gemini_schema
from kvworker.tools.manifest.schemas import input_schema, output_schema, plain_schema
from kvworker.tools.manifest.strict import strict_schema


def openai_tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return the ``tools`` of OpenAI's Responses API, in strict mode.

    Chat Completions nests the same definition: ``{"type": "function", "function": {...}}``. Pass the arguments of a
    call through ``arguments_from_strict`` before you pass them to ``KeyValueStore.call``.
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
    """Return the ``tools`` of Anthropic's Messages API.

    Pass a call's ``input`` unchanged to ``KeyValueStore.call``.
    """
    return [{"name": tool.name, "description": tool.summary, "input_schema": input_schema(tool)} for tool in tools]


def gemini_tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return the ``functionDeclarations`` of a tool of Gemini's API.

    Pass the arguments of a call through ``arguments_from_strict`` before you pass them to ``KeyValueStore.call``.
    """
    return [{"name": tool.name, "description": tool.summary, "parameters": gemini_schema(tool)} for tool in tools]


def mcp_tools(tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """Return the ``tools`` of MCP's ``tools/list``, with annotations and the schema of the structured result.

    Pass the arguments of a call through ``arguments_from_strict`` before you pass them to ``KeyValueStore.call``.
    """
    return [
        {
            "name": tool.name,
            "description": tool.summary,
            "inputSchema": plain_schema(tool),
            "outputSchema": output_schema(tool),
            "annotations": _annotations(tool),
        }
        for tool in tools
    ]


def _annotations(tool: Tool) -> dict[str, bool]:
    # A hint holds for every call, so an idempotency key, which makes one call repeatable, does not count.
    return {
        "readOnlyHint": tool.side_effects == "none",
        "destructiveHint": tool.side_effects == "destructive",
        "idempotentHint": tool.repeatable,
        "openWorldHint": False,
    }
