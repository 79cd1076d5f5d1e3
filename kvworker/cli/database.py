"""``namespaces``, ``sweep`` and ``recompute`` work on the database directly, without the queue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from kvworker.cli.options import config_option, json_option, load_settings
from kvworker.cli.output import console, make_table, print_json, shown_name, usage_table
from kvworker.model import LedgerDrift
from kvworker.ops.database import recompute_store, store_usage, sweep_store
from kvworker.wording import counted


@click.command("namespaces")
@click.argument("namespace", required=False)
@json_option
@config_option
def namespaces_command(config: Path | None, namespace: str | None, *, as_json: bool) -> None:
    """Show the usage and quota of each namespace.

    With NAMESPACE it shows only that one. It reads the database directly, so it needs the database's URL. `list` asks
    a worker instead, one page at a time, and so does `usage`, for one namespace or the whole store.
    """
    usages = store_usage(load_settings(config), namespace)
    if as_json:
        print_json([usage.to_dict() for usage in usages])
        return
    console().print(usage_table(usages))


@click.command("sweep")
@json_option
@config_option
def sweep_command(config: Path | None, *, as_json: bool) -> None:
    """Delete every expired entry now.

    It works in bounded batches, as the beat's regular sweep does.
    """
    swept = sweep_store(load_settings(config))
    if as_json:
        print_json(asdict(swept))
    else:
        entries = counted(swept.deleted_rows, "expired entry", "expired entries")
        click.echo(f"deleted {entries}, {counted(swept.freed_bytes, 'byte')}")


@click.command("recompute")
@json_option
@config_option
def recompute_command(config: Path | None, *, as_json: bool) -> None:
    """Set the ledgers to what the entries really use.

    It shows every ledger that was wrong.
    """
    recomputed = recompute_store(load_settings(config))
    if as_json:
        print_json(asdict(recomputed))
        return
    if recomputed.drifts:
        _print_drifts(recomputed.drifts)
    checked = counted(recomputed.checked_namespaces, "namespace")
    click.echo(f"checked {checked}, corrected {counted(len(recomputed.drifts), 'ledger')}")


def _print_drifts(drifts: Iterable[LedgerDrift]) -> None:
    numbers = ("recorded bytes", "actual bytes", "recorded entries", "actual entries")
    table = make_table("namespace", *numbers, numbers=numbers)
    for drift in drifts:
        sizes = (drift.recorded_bytes, drift.actual_bytes, drift.recorded_entries, drift.actual_entries)
        table.add_row(shown_name(drift.namespace), *(f"{size:,}" for size in sizes))
    console().print(table)
