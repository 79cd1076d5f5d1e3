"""The tools as others want them described: manifest entries, JSON Schemas, OpenAI, Anthropic and MCP definitions.

All of it is rendered from ``kvworker.tools.TOOLS``; nothing about a tool is written down here a second time.
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
