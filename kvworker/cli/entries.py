"""``get``, ``set``, ``delete`` and ``increment``: one operation through the facade."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from kvworker.cli.options import (
    config_option,
    idempotency_option,
    json_option,
    load_settings,
    timeout_option,
    ttl_option,
)
from kvworker.cli.output import print_json
from kvworker.client import KeyValueStore
from kvworker.errors import ValueSerializationError

# The options are named as the tools' arguments are, so that they go on as they come.


@click.command("get")
@click.argument("namespace")
@click.argument("key")
@timeout_option
@json_option
@config_option
def get_command(config: Path | None, timeout: float | None, *, as_json: bool, **arguments: str) -> None:
    """Print the value of KEY as JSON.

    Without an entry it says so on standard error and exits with 1; with --json it prints "found": false and
    exits with 0.
    """
    result = _call(config, "kv_get", arguments, timeout)
    if not as_json and not result["found"]:
        raise click.ClickException("no entry {key!r} in namespace {namespace!r}".format(**arguments))
    print_json(result if as_json else result["value"])


# A negative number is a value, not an option.
@click.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("namespace")
@click.argument("key")
@click.argument("value")
@ttl_option
@idempotency_option
@timeout_option
@json_option
@config_option
def set_command(config: Path | None, timeout: float | None, *, as_json: bool, value: str, **arguments: Any) -> None:
    """Store VALUE, which is JSON, under KEY.

    `-` reads the value from standard input.

    Without --ttl it does not expire, whatever it did before.
    """
    result = _call(config, "kv_set", {**arguments, "value": _parse_value(value)}, timeout)
    _print(result, f"stored{_expiry(result)}{_replay(result)}", as_json=as_json)


@click.command("delete")
@click.argument("namespace")
@click.argument("key")
@idempotency_option
@timeout_option
@json_option
@config_option
def delete_command(config: Path | None, timeout: float | None, *, as_json: bool, **arguments: Any) -> None:
    """Remove KEY. That it is not there is no error."""
    result = _call(config, "kv_delete", arguments, timeout)
    _print(result, ("deleted" if result["deleted"] else "was not there") + _replay(result), as_json=as_json)


@click.command("increment")
@click.argument("namespace")
@click.argument("key")
@click.option("--delta", type=int, default=1, show_default=True, help="What to add; may be negative.")
@click.option("--initial-value", type=int, default=0, show_default=True, help="What a missing counter starts from.")
@ttl_option
@idempotency_option
@timeout_option
@json_option
@config_option
def increment_command(config: Path | None, timeout: float | None, *, as_json: bool, **arguments: Any) -> None:
    """Add to the counter KEY and print its new value. Without --ttl it keeps the one it has."""
    result = _call(config, "kv_increment", arguments, timeout)
    _print(result, str(result["value"]), as_json=as_json)


def _call(config: Path | None, tool: str, arguments: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    with KeyValueStore(load_settings(config)) as store:
        return store.call(tool, arguments, timeout=timeout)


def _parse_value(text: str) -> Any:
    """The value that JSON text means.

    Raises:
        ValueSerializationError: it is not JSON.
    """
    try:
        return json.loads(sys.stdin.buffer.read() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise ValueSerializationError(
            f"""VALUE is not JSON: {reason}. Quote it for the shell: a string is '"text"', an object '{{"a": 1}}'"""
        ) from None


def _print(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        click.echo(text)


def _expiry(result: dict[str, Any]) -> str:
    seconds = result.get("ttl_seconds")
    return f", expires in {seconds:g} s" if seconds is not None else ""


def _replay(result: dict[str, Any]) -> str:
    return " (replayed: this idempotency key had been applied)" if result["replayed"] else ""
