"""``append``, ``merge`` and ``pop``: change or take a value that others may change too."""

from __future__ import annotations

from typing import Any

import click

from kvworker.cli.json_arguments import parse_json
from kvworker.cli.options import expected_version_option, idempotency_option, ttl_option
from kvworker.cli.output import print_json
from kvworker.cli.tool_command import Call, check_found, outcome_text, print_outcome, tool_command

# A negative number is a value, not an option.
_JSON_ARGUMENTS = {"ignore_unknown_options": True}


@click.command("append", context_settings=_JSON_ARGUMENTS)
@click.argument("namespace")
@click.argument("key")
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option("--max-items", type=int, metavar="N", help="Keep only the last N items of the list.")
@ttl_option
@idempotency_option
@tool_command
def append_command(call: Call, *, as_json: bool, items: tuple[str, ...], **arguments: Any) -> None:
    """Append each ITEM, which is JSON, to the list KEY.

    `-` reads an item from standard input. A missing entry becomes a list of the items. Without --ttl the list keeps
    its expiry.
    """
    result = call("kv_append", {**arguments, "items": [parse_json(item, "ITEM") for item in items]})
    print_outcome(result, outcome_text("kv_append", result), as_json=as_json)


@click.command("merge", context_settings=_JSON_ARGUMENTS)
@click.argument("namespace")
@click.argument("key")
@click.argument("patch")
@ttl_option
@expected_version_option
@idempotency_option
@tool_command
def merge_command(call: Call, *, as_json: bool, patch: str, **arguments: Any) -> None:
    """Change some members of the object KEY by PATCH, a JSON merge patch (RFC 7396).

    `-` reads the patch from standard input. null removes a member, and an object changes a member's own members. A
    missing entry becomes an object. Without --ttl the entry keeps its expiry.
    """
    result = call("kv_merge", {**arguments, "patch": parse_json(patch, "PATCH")})
    print_outcome(result, outcome_text("kv_merge", result), as_json=as_json)


@click.command("pop")
@click.argument("namespace")
@click.argument("key")
@idempotency_option
@tool_command
def pop_command(call: Call, *, as_json: bool, **arguments: str) -> None:
    """Print the value of KEY as JSON and delete the entry. No other caller gets the value.

    If there is no entry, it says so on standard error and the exit code is 1. With --json it prints "found": false
    and the exit code is 0.
    """
    result = call("kv_get_and_delete", arguments)
    if not as_json:
        check_found(result)
    print_json(result if as_json else result["value"])
