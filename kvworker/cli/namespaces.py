"""``usage``, ``quota`` and ``clear``: a namespace as a whole."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from kvworker.cli.options import idempotency_option
from kvworker.cli.output import console, print_json, usage_table
from kvworker.cli.tool_command import Call, print_outcome, tool_command
from kvworker.model import LedgerUsage

_UNITS = {None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _parse_bytes(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Bytes, plain or in KiB, MiB or GiB; the tool bounds them."""
    if text is None:
        return None
    found = re.fullmatch("([0-9]{1,19})(KiB|MiB|GiB)?", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no number of bytes, such as 1048576 or 1MiB")
    return int(found[1]) * _UNITS[found[2]]


@click.command("usage")
@click.argument("namespace", required=False)
@tool_command
def usage_command(call: Call, *, as_json: bool, namespace: str | None) -> None:
    """Show what NAMESPACE, or the whole store, uses of its quota."""
    _show_usage(call, namespace, as_json=as_json)


@click.command("quota")
@click.argument("namespace")
@click.argument("quota_bytes", callback=_parse_bytes, required=False, metavar="[BYTES]")
@click.option("--reset", is_flag=True, help="Give the configured quota back.")
@idempotency_option
@tool_command
def quota_command(call: Call, *, as_json: bool, reset: bool, **arguments: Any) -> None:
    """Give NAMESPACE a quota of its own.

    BYTES is such as 1048576, 512KiB, 1MiB or 2GiB. What is stored stays, even above a smaller quota; what would grow
    is then refused. Without BYTES and --reset it shows the usage and the quota.
    """
    quota_bytes = arguments["quota_bytes"]
    if reset and quota_bytes is not None:
        raise click.UsageError("BYTES and --reset exclude each other")
    if not reset and quota_bytes is None:
        _show_usage(call, arguments["namespace"], as_json=as_json)
        return
    text = "the configured quota holds again" if reset else f"the quota is {quota_bytes:,} bytes"
    print_outcome(call("kv_set_quota", arguments), text, as_json=as_json)


@click.command("clear")
@click.argument("namespace")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@idempotency_option
@tool_command
def clear_command(call: Call, *, as_json: bool, yes: bool, **arguments: Any) -> None:
    """Remove every entry of NAMESPACE at once. There is no way back.

    It asks first; where nobody can answer, it needs --yes.
    """
    if not yes:
        _confirm(call, arguments["namespace"])
    result = call("kv_clear", arguments)
    text = f"removed {result['deleted_entries']:,} entries, {result['freed_bytes']:,} bytes"
    print_outcome(result, text, as_json=as_json)


def _show_usage(call: Call, namespace: str | None, *, as_json: bool) -> None:
    usage = call("kv_usage", {"namespace": namespace})
    if as_json:
        print_json(usage)
    else:
        console().print(usage_table([LedgerUsage.from_dict(usage)]))


def _confirm(call: Call, namespace: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"clearing {namespace!r} has no way back; where nobody can answer, say --yes")
    usage = call("kv_usage", {"namespace": namespace})
    held = f"{usage['entry_count']:,} entries, {usage['used_bytes']:,} bytes"
    if not click.confirm(f"Remove everything in namespace {namespace!r} ({held})?", err=True):
        raise click.ClickException("nothing was removed")
