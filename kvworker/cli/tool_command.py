"""What commands that call a tool have in common: their options, the store behind them, and how an outcome is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeAlias

import click

from kvworker.cli.options import config_option, json_option, load_settings, persona_option, timeout_option
from kvworker.cli.output import json_text, print_json, seconds_text
from kvworker.client.sync import KeyValueStore

#: Runs a tool within the command's timeout: its name and arguments in, its result out.
Call: TypeAlias = Callable[[str, Mapping[str, Any]], dict[str, Any]]


def tool_command(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --persona, --timeout, --json and --config; it is handed a ``Call`` for three of them."""

    @wraps(command)
    def called(config: Path | None, persona: str | None, timeout: float | None, **rest: Any) -> None:
        with KeyValueStore(load_settings(config), persona) as store:
            command(partial(store.call, timeout=timeout), **rest)

    return persona_option(timeout_option(json_option(config_option(called))))


def print_outcome(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print what a write did: the text for people, the whole result for programs."""
    if as_json:
        print_json(result)
    else:
        click.echo(text + replay_note(result))


def check_found(result: Mapping[str, Any]) -> None:
    """Check that an operation found its entry.

    Raises:
        ClickException: there is none.
    """
    if not result["found"]:
        raise click.ClickException("no entry {key!r} in namespace {namespace!r}".format(**result))


def outcome_text(tool: str, result: Mapping[str, Any]) -> str:
    """What an operation on one entry did, in a few words."""
    if not result.get("found", True):
        return "no entry"
    match tool:
        case "kv_get":
            return json_text(result["value"])
        case "kv_set":
            return "stored" + (f", {_expiry(result)}" if "ttl_seconds" in result else "")
        case "kv_delete":
            return "deleted" if result["deleted"] else "was not there"
        case "kv_increment":
            return str(result["value"])
        case _:
            return _expiry(result)


def replay_note(result: Mapping[str, Any]) -> str:
    """What a write's outcome ends with if it is that of an earlier call."""
    return " (replayed: this idempotency key had been applied)" if result["replayed"] else ""


def _expiry(result: Mapping[str, Any]) -> str:
    seconds = result.get("ttl_seconds")
    return "does not expire" if seconds is None else f"expires in {seconds_text(seconds)}"
