"""``get``, ``set``, ``delete``, ``increment``, ``touch`` and ``persist``: one operation on one entry."""

from __future__ import annotations

from typing import Any

import click

from kvworker.cli.json_arguments import parse_json
from kvworker.cli.options import Seconds, expected_version_option, idempotency_option, ttl_option
from kvworker.cli.output import print_json
from kvworker.cli.tool_command import Call, check_found, outcome_text, print_outcome, tool_command

# The options have the names of the tools' arguments, so that the commands can pass them on unchanged.


@click.command("get")
@click.argument("namespace")
@click.argument("key")
@tool_command
def get_command(call: Call, *, as_json: bool, **arguments: str) -> None:
    """Print the value of KEY as JSON.

    If there is no entry, it says so on standard error and the exit code is 1. With --json it prints "found": false
    and the exit code is 0.
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
@click.option("--keep-ttl", is_flag=True, help="Keep the entry's current expiry.")
@click.option("--if-absent", is_flag=True, help="Write only if there is no entry yet.")
@expected_version_option
@idempotency_option
@tool_command
def set_command(call: Call, *, as_json: bool, value: str, **arguments: Any) -> None:
    """Store VALUE, which is JSON, under KEY.

    `-` reads the value from standard input.

    Without --ttl or --keep-ttl the entry does not expire, even if it had an expiry before. With --if-absent or
    --expected-version the command fails, and changes nothing, if the entry is not as expected.
    """
    result = call("kv_set", {**arguments, "value": parse_json(value, "VALUE")})
    print_outcome(result, outcome_text("kv_set", result), as_json=as_json)


@click.command("delete")
@click.argument("namespace")
@click.argument("key")
@expected_version_option
@idempotency_option
@tool_command
def delete_command(call: Call, *, as_json: bool, **arguments: Any) -> None:
    """Delete KEY. A missing entry is not an error, unless you give --expected-version."""
    result = call("kv_delete", arguments)
    print_outcome(result, outcome_text("kv_delete", result), as_json=as_json)


@click.command("increment")
@click.argument("namespace")
@click.argument("key")
@click.option("--delta", type=int, default=1, show_default=True, help="Amount to add; may be negative.")
@click.option("--initial-value", type=int, default=0, show_default=True, help="Start value of a missing counter.")
@ttl_option
@idempotency_option
@tool_command
def increment_command(call: Call, *, as_json: bool, **arguments: Any) -> None:
    """Add to the counter KEY and print its new value. Without --ttl the counter keeps its expiry."""
    result = call("kv_increment", arguments)
    print_json(result if as_json else result["value"])


@click.command("touch")
@click.argument("namespace")
@click.argument("key")
@click.argument("ttl_seconds", type=Seconds(), metavar="SECONDS")
@expected_version_option
@idempotency_option
@tool_command
def touch_command(call: Call, *, as_json: bool, **arguments: Any) -> None:
    """Let KEY expire SECONDS from now. Its value and version do not change.

    If there is no entry, it says so on standard error and the exit code is 1. With --json it prints "found": false
    and the exit code is 0.
    """
    _change_expiry(call, "kv_touch", arguments, as_json=as_json)


@click.command("persist")
@click.argument("namespace")
@click.argument("key")
@expected_version_option
@idempotency_option
@tool_command
def persist_command(call: Call, *, as_json: bool, **arguments: Any) -> None:
    """Remove the expiry of KEY. Its value and version do not change.

    If there is no entry, it says so on standard error and the exit code is 1. With --json it prints "found": false
    and the exit code is 0.
    """
    _change_expiry(call, "kv_persist", arguments, as_json=as_json)


def _change_expiry(call: Call, tool: str, arguments: dict[str, Any], *, as_json: bool) -> None:
    result = call(tool, arguments)
    if not as_json:
        check_found(result)
    print_outcome(result, outcome_text(tool, result), as_json=as_json)
