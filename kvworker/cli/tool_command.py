"""The decorator for commands that call a tool, and the text that describes a tool's outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from kvworker.cli.options import config_option, json_option, load_settings, persona_option, timeout_option
from kvworker.cli.output import json_text, print_json, seconds_text
from kvworker.client.sync import KeyValueStore
from kvworker.wording import counted

#: Calls a tool by name with its arguments, within the command's timeout, and returns its result.
Call: TypeAlias = Callable[[str, Mapping[str, Any]], dict[str, Any]]


def tool_command(command: Callable[..., None]) -> Callable[..., None]:
    """Add --persona, --timeout, --json and --config to a command.

    The command receives ``as_json``, and a ``Call`` that already applies the other three options.
    """

    @wraps(command)
    def _called(config: Path | None, persona: str | None, timeout: float | None, **rest: Any) -> None:
        with KeyValueStore(load_settings(config), persona) as store:
            command(partial(store.call, timeout=timeout), **rest)

    return persona_option(timeout_option(json_option(config_option(_called))))


def print_outcome(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print the outcome of a write: the text, or with ``as_json`` the whole result."""
    if as_json:
        print_json(result)
    else:
        click.echo(text + replay_note(result))


def check_found(result: Mapping[str, Any]) -> None:
    """Check that an operation found its entry.

    Raises:
        ClickException: There is no entry.
    """
    if not result["found"]:
        raise click.ClickException("no entry {key!r} in namespace {namespace!r}".format(**result))


def outcome_text(tool: str, result: Mapping[str, Any]) -> str:
    """Describe the outcome of an operation on one entry in a few words."""
    if not result.get("found", True):
        return "no entry"
    return _TEXTS.get(tool, _expiry)(result)


def _stored(result: Mapping[str, Any]) -> str:
    return "stored" + (f", {_expiry(result)}" if "ttl_seconds" in result else "")


def _acquired(result: Mapping[str, Any]) -> str:
    if result["acquired"]:
        return f"token {result['token']}, {_expiry(result)}"
    return f"held by others, again in {seconds_text(result['retry_after_seconds'])}"


def _allowed(result: Mapping[str, Any]) -> str:
    if result["allowed"]:
        return f"allowed, {result['remaining']} left"
    return f"not allowed, again in {seconds_text(result['retry_after_seconds'])}"


def _appended(result: Mapping[str, Any]) -> str:
    dropped = result["dropped"]
    return counted(result["length"], "item") + (f", {dropped} dropped" if dropped else "")


def replay_note(result: Mapping[str, Any]) -> str:
    """Describe a replay: text to append to the outcome of a write, empty unless an earlier call applied it."""
    return " (replayed: an earlier call applied this idempotency key)" if result["replayed"] else ""


def _expiry(result: Mapping[str, Any]) -> str:
    seconds = result.get("ttl_seconds")
    return "does not expire" if seconds is None else f"expires in {seconds_text(seconds)}"


#: What each tool's outcome says. The others tell when the entry expires.
_TEXTS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "kv_get": lambda result: json_text(result["value"]),
    "kv_set": _stored,
    "kv_delete": lambda result: "deleted" if result["deleted"] else "no entry",
    "kv_increment": lambda result: str(result["value"]),
    "kv_acquire_permit": _acquired,
    "kv_release_permit": lambda result: "released" if result["released"] else "not held",
    "kv_rate_limit": _allowed,
    "kv_append": _appended,
    "kv_merge": lambda result: f"merged, {_expiry(result)}" if "ttl_seconds" in result else "merged",
    "kv_get_and_delete": lambda result: json_text(result["value"]),
}
