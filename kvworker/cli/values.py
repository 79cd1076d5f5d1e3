"""``append``: change a part of a value that others may change too."""

from __future__ import annotations

from typing import Any

import click

from kvworker.cli.json_arguments import parse_json
from kvworker.cli.options import idempotency_option, ttl_option
from kvworker.cli.tool_command import Call, outcome_text, print_outcome, tool_command

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
