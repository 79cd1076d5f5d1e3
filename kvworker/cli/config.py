"""``config``: prints the effective settings with their origins, and the JSON Schemas."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from kvworker.cli.options import config_option, json_option
from kvworker.cli.output import print_json, shell_word
from kvworker.settings.provenance import EffectiveSettings, SettingPath, effective_settings, is_leaf
from kvworker.settings.schema import configuration_schema, personas_schema, schema_text


@click.group("config")
def config_command() -> None:
    """Show the settings that apply, or the schema of the configuration file."""


@config_command.command("show")
@json_option
@config_option
def show_command(config: Path | None, *, as_json: bool) -> None:
    """Print the effective settings, and where each came from, without secrets.

    The comment after a value names the file or the environment variable that gave it, or says that it is the default.
    """
    effective = effective_settings(config, os.environ)
    if as_json:
        print_json(
            {
                "file": str(effective.file) if effective.file else None,
                "settings": effective.values,
                "origins": {".".join(setting): origin for setting, origin in effective.origins.items()},
            }
        )
        return
    for line in _yaml_lines(effective, effective.values):
        click.echo(line)


@config_command.command("schema")
@click.option("--personas", is_flag=True, help="Print the schema of a personas file instead.")
def schema_command(*, personas: bool) -> None:
    """Print the JSON Schema of the configuration file, for editors and other tools.

    An editor finds it by the file's first line: "# yaml-language-server: $schema=kvworker.schema.json".
    """
    click.echo(schema_text(personas_schema() if personas else configuration_schema()), nl=False)


def _yaml_lines(effective: EffectiveSettings, block: Mapping[str, Any], above: SettingPath = ()) -> Iterator[str]:
    indent = "  " * len(above)
    for key, value in block.items():
        setting = (*above, key)
        if is_leaf(setting, value):
            origin = effective.origins[setting]
            yield f"{indent}{_scalar(key)}: {_scalar(value)}  # {shell_word(origin)}"
        else:
            yield f"{indent}{_scalar(key)}:"
            yield from _yaml_lines(effective, value, setting)


def _scalar(value: object) -> str:
    """A key or a value as YAML on one line, with escapes where the output's encoding lacks the characters."""
    text: str = yaml.safe_dump(
        [value], default_flow_style=True, width=float("inf"), allow_unicode=False, sort_keys=False
    )
    return text.strip()[1:-1]
