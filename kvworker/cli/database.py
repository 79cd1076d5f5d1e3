"""``migrate``, ``namespaces``, ``sweep`` and ``recompute``: directly on the database, without the queue."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from kvworker.adapters.providers import adapters_in_use
from kvworker.cli.options import config_option, json_option, load_settings
from kvworker.cli.output import console, make_table, print_json, shown_name, usage_table
from kvworker.model import LedgerDrift, RecomputeReport, SweepReport
from kvworker.ops.database import migrate_store, open_adapter
from kvworker.settings import Settings


@click.command("migrate")
@json_option
@config_option
def migrate_command(config: Path | None, *, as_json: bool) -> None:
    """Create or update the database's schema. Safe to repeat, and to run from several places at once."""
    version = migrate_store(load_settings(config))
    if as_json:
        print_json({"schema_version": version})
    elif version is None:
        click.echo("the adapter has no schema to migrate")
    else:
        click.echo(f"the schema is at version {version}")


@click.command("namespaces")
@click.argument("namespace", required=False)
@json_option
@config_option
def namespaces_command(config: Path | None, namespace: str | None, *, as_json: bool) -> None:
    """Show what each namespace uses of its quota.

    With NAMESPACE only that one. It reads the database itself and so needs its URL; `list` asks a worker, a page at
    a time, and `usage` for one namespace or the whole store.
    """
    with open_adapter(load_settings(config)) as adapter:
        usages = adapter.usage(namespace)
    if as_json:
        print_json([usage.to_dict() for usage in usages])
        return
    console().print(usage_table(usages))


@click.command("sweep")
@json_option
@config_option
def sweep_command(config: Path | None, *, as_json: bool) -> None:
    """Delete every expired entry now.

    In bounded batches, as the beat does from time to time.
    """
    settings = load_settings(config)
    reports = [report for name in adapters_in_use(settings) for report in _sweep(settings, name)]
    rows = sum(report.deleted_rows for report in reports)
    freed_bytes = sum(report.freed_bytes for report in reports)
    if as_json:
        print_json({"deleted_rows": rows, "freed_bytes": freed_bytes})
    else:
        click.echo(f"deleted {rows} expired entries, {freed_bytes} bytes")


@click.command("recompute")
@json_option
@config_option
def recompute_command(config: Path | None, *, as_json: bool) -> None:
    """Set the ledgers to what is really used.

    Shows each that was wrong.
    """
    settings = load_settings(config)
    reports = [report for name in adapters_in_use(settings) for report in _recompute(settings, name)]
    checked = sum(report.checked_namespaces for report in reports)
    drifts = [drift for report in reports for drift in report.drifts]
    if as_json:
        print_json({"checked_namespaces": checked, "drifts": [asdict(drift) for drift in drifts]})
        return
    if drifts:
        _print_drifts(drifts)
    click.echo(f"checked {checked} namespaces, mended {len(drifts)} ledgers")


def _sweep(settings: Settings, adapter_name: str) -> Iterator[SweepReport]:
    limits = settings.maintenance
    with open_adapter(settings, adapter_name) as adapter:
        complete = False
        while not complete:
            report = adapter.sweep_expired(
                batch_rows=limits.sweep_batch_rows, budget_seconds=limits.sweep_budget_seconds
            )
            yield report
            complete = report.complete


def _recompute(settings: Settings, adapter_name: str) -> Iterator[RecomputeReport]:
    budget_seconds, after = settings.maintenance.recompute_budget_seconds, None
    with open_adapter(settings, adapter_name) as adapter:
        complete = False
        while not complete:
            report = adapter.recompute_ledgers(after=after, budget_seconds=budget_seconds)
            yield report
            after, complete = report.next_after, report.complete


def _print_drifts(drifts: list[LedgerDrift]) -> None:
    numbers = ("recorded bytes", "actual bytes", "recorded entries", "actual entries")
    table = make_table("namespace", *numbers, numbers=numbers)
    for drift in drifts:
        sizes = (drift.recorded_bytes, drift.actual_bytes, drift.recorded_entries, drift.actual_entries)
        table.add_row(shown_name(drift.namespace), *(f"{size:,}" for size in sizes))
    console().print(table)
