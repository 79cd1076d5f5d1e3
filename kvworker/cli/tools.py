"""``tools``: prints the tools' definitions in the format of a model provider or host."""

from __future__ import annotations

from pathlib import Path

import click

from kvworker.cli.options import config_option, load_settings, persona_option
from kvworker.cli.output import print_json
from kvworker.tools.manifest import anthropic_tools, gemini_tools, manifest_entries, mcp_tools, openai_tools, tools_of

_FORMATS = {"openai": openai_tools, "anthropic": anthropic_tools, "gemini": gemini_tools, "mcp": mcp_tools}


@click.command("tools")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["manifest", *_FORMATS]),
    default="manifest",
    show_default=True,
    help="Format: a host's tool manifest, OpenAI (strict), Anthropic, Gemini or MCP.",
)
@persona_option
@config_option
def tools_command(config: Path | None, kind: str, persona: str | None) -> None:
    """Print the tool definitions as a JSON list.

    It prints all tools, or those that the persona may use.
    """
    settings = load_settings(config)
    if kind == "manifest":
        print_json(manifest_entries(settings, persona))
    else:
        print_json(_FORMATS[kind](tools_of(settings, persona)))
