"""``usage``, ``quota`` and ``clear`` act on a whole namespace."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from kvworker.cli.options import idempotency_option
from kvworker.cli.output import console, print_json, usage_table
from kvworker.cli.tool_command import Call, print_outcome, tool_command
from kvworker.model import LedgerUsage
from kvworker.wording import noun

_UNITS = {None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _parse_bytes(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Parse a number of bytes, plain or in KiB, MiB or GiB. The tool checks its bounds."""
    if text is None:
        return None
    found = re.fullmatch("([0-9]{1,19})(KiB|MiB|GiB)?", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a number of bytes, such as 1048576 or 1MiB")
    return int(found[1]) * _UNITS[found[2]]


@click.command("usage")
@click.argument("namespace", required=False)
@tool_command
def usage_command(call: Call, *, as_json: bool, namespace: str | None) -> None:
    """Show the usage and quota of NAMESPACE, or of the whole store."""
    _show_usage(call, namespace, as_json=as_json)


@click.command("quota")
@click.argument("namespace")
@click.argument("quota_bytes", callback=_parse_bytes, required=False, metavar="[BYTES]")
@click.option("--reset", is_flag=True, help="Return to the configured quota.")
@idempotency_option
@tool_command
def quota_command(call: Call, *, as_json: bool, reset: bool, **arguments: Any) -> None:
    """Give NAMESPACE its own quota.

    BYTES is a number such as 1048576, 512KiB, 1MiB or 2GiB. A smaller quota deletes nothing, but the namespace cannot
    grow beyond it. Without BYTES and --reset the command shows the usage and the quota.
    """
    quota_bytes = arguments["quota_bytes"]
    if reset and quota_bytes is not None:
        raise click.UsageError("BYTES and --reset exclude each other")
    if not reset and quota_bytes is None:
        _show_usage(call, arguments["namespace"], as_json=as_json)
        return
    text = (
        "the configured quota applies again" if reset else f"the quota is {quota_bytes:,} {noun(quota_bytes, 'byte')}"
    )
    print_outcome(call("kv_set_quota", arguments), text, as_json=as_json)


@click.command("clear")
@click.argument("namespace")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@idempotency_option
@tool_command
def clear_command(call: Call, *, as_json: bool, yes: bool, **arguments: Any) -> None:
    """Delete every entry of NAMESPACE at once. You cannot undo this.

    It asks for confirmation. Without a terminal it needs --yes.
    """
    if not yes:
        _confirm(call, arguments["namespace"])
    result = call("kv_clear", arguments)
    text = f"deleted {_content(result['deleted_entries'], result['freed_bytes'])}"
    print_outcome(result, text, as_json=as_json)


def _show_usage(call: Call, namespace: str | None, *, as_json: bool) -> None:
    usage = call("kv_usage", {"namespace": namespace})
    if as_json:
        print_json(usage)
    else:
        shown = LedgerUsage.from_dict(usage)
        console().print(usage_table([shown]))
        if shown.namespace_count is not None and shown.namespace_limit is not None:
            click.echo(
                f"{shown.namespace_count:,} of {shown.namespace_limit:,} {noun(shown.namespace_limit, 'namespace')}"
            )


def _confirm(call: Call, namespace: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"you cannot undo clearing {namespace!r}; without a terminal, confirm it with --yes")
    usage = call("kv_usage", {"namespace": namespace})
    content = _content(usage["entry_count"], usage["used_bytes"])
    if not click.confirm(f"Delete everything in namespace {namespace!r} ({content})?", err=True):
        raise click.ClickException("nothing was deleted")


def _content(entries: int, size_bytes: int) -> str:
    return f"{entries:,} {noun(entries, 'entry', 'entries')}, {size_bytes:,} {noun(size_bytes, 'byte')}"
