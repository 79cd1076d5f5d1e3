"""``touch`` and ``persist``: when an entry expires."""

from __future__ import annotations

from typing import Any

import click

from kvworker.cli.options import idempotency_option
from kvworker.cli.tool_command import Call, check_found, outcome_text, print_outcome, tool_command


@click.command("touch")
@click.argument("namespace")
@click.argument("key")
@click.argument("ttl_seconds", type=float, metavar="SECONDS")
@idempotency_option
@tool_command
def touch_command(call: Call, *, as_json: bool, **arguments: Any) -> None:
    """Let KEY expire SECONDS from now. Its value and its version stay as they are.

    Without an entry it says so on standard error and exits with 1; with --json it prints "found": false and
    exits with 0.
    """
    _change_expiry(call, "kv_touch", arguments, as_json=as_json)


@click.command("persist")
@click.argument("namespace")
@click.argument("key")
@idempotency_option
@tool_command
def persist_command(call: Call, *, as_json: bool, **arguments: Any) -> None:
    """Let KEY stay for good. Its value and its version stay as they are.

    Without an entry it says so on standard error and exits with 1; with --json it prints "found": false and
    exits with 0.
    """
    _change_expiry(call, "kv_persist", arguments, as_json=as_json)


def _change_expiry(call: Call, tool: str, arguments: dict[str, Any], *, as_json: bool) -> None:
    result = call(tool, arguments)
    if not as_json:
        check_found(result)
    print_outcome(result, outcome_text(tool, result), as_json=as_json)
