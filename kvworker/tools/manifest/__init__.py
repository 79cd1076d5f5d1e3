"""Renders the tools for hosts and models: manifest entries, JSON Schemas, and definitions for models and MCP.

Everything is derived from ``kvworker.tools.TOOLS``; no fact about a tool is repeated here. This package may import
``kvworker.tools`` and what lies below it.
"""

from kvworker.tools.manifest.entries import manifest_entries, tools_of
from kvworker.tools.manifest.formats import anthropic_tools, gemini_tools, mcp_tools, openai_tools
from kvworker.tools.manifest.gemini import gemini_schema
from kvworker.tools.manifest.schemas import input_schema, output_schema, plain_schema
from kvworker.tools.manifest.strict import strict_schema
from kvworker.tools.manifest.text_values import arguments_from_strict

__all__ = [
    "anthropic_tools",
    "arguments_from_strict",
    "gemini_schema",
    "gemini_tools",
    "input_schema",
    "manifest_entries",
    "mcp_tools",
    "openai_tools",
    "output_schema",
    "plain_schema",
    "strict_schema",
    "tools_of",
]
