"""Renders the tools for hosts and models: manifest entries, JSON Schemas, OpenAI, Anthropic and MCP definitions.

Everything is derived from ``kvworker.tools.TOOLS``; no fact about a tool is repeated here. This package may import
``kvworker.tools`` and what lies below it.
"""

from kvworker.tools.manifest.entries import manifest_entries, tools_of
from kvworker.tools.manifest.formats import anthropic_tools, mcp_tools, openai_tools
from kvworker.tools.manifest.schemas import input_schema, output_schema
from kvworker.tools.manifest.strict import arguments_from_strict, strict_schema

__all__ = [
    "anthropic_tools",
    "arguments_from_strict",
    "input_schema",
    "manifest_entries",
    "mcp_tools",
    "openai_tools",
    "output_schema",
    "strict_schema",
    "tools_of",
]
