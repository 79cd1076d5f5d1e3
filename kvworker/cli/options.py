"""What the commands have in common: options, settings, and access to the store."""

from __future__ import annotations

import os
from pathlib import Path

import click

from kvworker.settings import Settings
from kvworker.settings.root import CONFIG_VARIABLE

UP_CONFIG = Path(".kvworker") / "kvworker.yaml"

config_option = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Configuration file [default: {CONFIG_VARIABLE}, else {UP_CONFIG} if it exists].",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
persona_option = click.option("--persona", metavar="NAME", help="Act as this persona of the policies.")
timeout_option = click.option("--timeout", type=float, metavar="SECONDS", help="Bounds the whole call.")
ttl_option = click.option("--ttl", "ttl_seconds", type=float, metavar="SECONDS", help="Let it expire after this time.")
expected_version_option = click.option(
    "--expected-version", type=int, metavar="N", help="Only do it at this version, which `get --json` tells."
)
idempotency_option = click.option(
    "--idempotency-key", metavar="ID", help="Apply it once, however often it is sent with this id."
)


def config_path(config: Path | None) -> Path | None:
    """The configuration file that a command uses; None if there is none."""
    if config is not None:
        return config
    if named := os.environ.get(CONFIG_VARIABLE, "").strip():
        return Path(named)
    return UP_CONFIG if UP_CONFIG.is_file() else None


def load_settings(config: Path | None) -> Settings:
    """The settings that a command uses.

    Raises:
        ConfigurationError: the file is missing or wrong.
    """
    return Settings.load(config_path(config))
