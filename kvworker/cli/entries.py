"""``get``, ``set``, ``delete`` and ``increment``: one operation through the facade."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from kvworker.cli.options import expected_version_option, idempotency_option, ttl_option
from kvworker.cli.output import print_json
from kvworker.cli.tool_command import Call, check_found, outcome_text, print_outcome, tool_command
from kvworker.errors import ValueSerializationError

# The options are named as the tools' arguments are, so that they go on as they come.


@click.command("get")
@click.argument("namespace")
@click.argument("key")
@tool_command
def get_command(call: Call, *, as_json: bool, **arguments: str) -> None:
    """Print the value of KEY as JSON.

    Without an entry it says so on standard error and exits with 1; with --json it prints "found": false and
    exits with 0.
    """
    result = call("kv_get", arguments)
    if not as_json:
        check_found(result)
    print_json(result if as_json else result["value"])


# A negative number is a value, not an option.
@click.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("namespace")
@click.argument("key")
@click.argument("value")
@ttl_option
@click.option("--keep-ttl", is_flag=True, help="Leave the expiry that it has.")
@click.option("--if-absent", is_flag=True, help="Only write if there is no entry.")
@expected_version_option
@idempotency_option
@tool_command
def set_command(call: Call, *, as_json: bool, value: str, **arguments: Any) -> None:
    """Store VALUE, which is JSON, under KEY.

    `-` reads the value from standard input.

    Without --ttl or --keep-ttl it does not expire, whatever it did before. With --if-absent or --expected-version it
    fails, and changes nothing, if the entry is not as expected.
    """
    result = call("kv_set", {**arguments, "value": _parse_value(value)})
    print_outcome(result, outcome_text("kv_set", result), as_json=as_json)


@click.command("delete")
@click.argument("namespace")
@click.argument("key")
@expected_version_option
@idempotency_option
@tool_command
def delete_command(call: Call, *, as_json: bool, **arguments: Any) -> None:
    """Remove KEY. That it is not there is no error, unless a version is expected."""
    result = call("kv_delete", arguments)
    print_outcome(result, outcome_text("kv_delete", result), as_json=as_json)


@click.command("increment")
@click.argument("namespace")
@click.argument("key")
@click.option("--delta", type=int, default=1, show_default=True, help="What to add; may be negative.")
@click.option("--initial-value", type=int, default=0, show_default=True, help="What a missing counter starts from.")
@ttl_option
@idempotency_option
@tool_command
def increment_command(call: Call, *, as_json: bool, **arguments: Any) -> None:
    """Add to the counter KEY and print its new value. Without --ttl it keeps the one it has."""
    result = call("kv_increment", arguments)
    print_json(result if as_json else result["value"])


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
