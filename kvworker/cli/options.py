"""The options that commands share, and the settings that a command runs with."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import click

from kvworker.settings import Settings
from kvworker.settings.config_file import UP_CONFIG, find_file
from kvworker.settings.environment import CONFIG_VARIABLE
from kvworker.settings.hosts import listen_addresses


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """A number of seconds."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail with an example."""
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of seconds, such as 60 or 0.5", param, ctx)


class PositiveNumber(click.FloatRange):
    """A number above 0, and at most ``largest``. ``FloatRange`` alone lets NaN pass, which is in no range."""

    def __init__(self, largest: float) -> None:
        super().__init__(min=0, min_open=True, max=largest)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number, or fail."""
        number: float = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is not a number.", param, ctx) if math.isnan(number) else number


config_option = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Configuration file [default: {CONFIG_VARIABLE}, else {UP_CONFIG} if it exists].",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
persona_option = click.option("--persona", metavar="NAME", help="Act as this persona from the policies.")
timeout_option = click.option("--timeout", type=Seconds(), metavar="SECONDS", help="Bound on each call.")
ttl_option = click.option(
    "--ttl", "ttl_seconds", type=Seconds(), metavar="SECONDS", help="Time until the entry expires."
)
expected_version_option = click.option(
    "--expected-version", type=int, metavar="N", help="Write only if the entry has this version; `get --json` shows it."
)
idempotency_option = click.option(
    "--idempotency-key", metavar="ID", help="Apply the write only once, however often you send it with this id."
)


def config_path(config: Path | None) -> Path | None:
    """Return the configuration file of a command, or None if none is named or found."""
    return find_file(config, os.environ)


def load_settings(config: Path | None) -> Settings:
    """Load the settings of a command.

    Raises:
        ConfigurationError: The configuration file is missing or invalid.
    """
    return Settings.load(config)


def check_listen(_context: click.Context, _option: click.Parameter, where: str | None) -> str | None:
    """Refuse an invalid address to listen on."""
    try:
        if where is not None:
            listen_addresses(where)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return where


access_metrics_option = click.option(
    "--metrics-listen",
    metavar="[HOST:]PORT",
    callback=check_listen,
    help="Where to serve the number of failed attempts for Prometheus; a port alone is for this machine only.",
)
