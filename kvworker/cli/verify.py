"""``verify``: one line for each problem of the store, and what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kvworker.cli.options import config_option, json_option, load_settings
from kvworker.cli.output import error_console, print_json
from kvworker.model import StoreProblem, VerifyReport, escaped_lines, shown_name
from kvworker.ops.verification import VerifiedStore, advice_on, verify_store
from kvworker.settings import Settings
from kvworker.wording import counted

_SHOWN_PROBLEMS = 20


@click.command("verify")
@json_option
@config_option
def verify_command(config: Path | None, *, as_json: bool) -> None:
    """Check that the store is consistent. It changes nothing, and the store may be in use.

    It reads one snapshot of the whole database directly, and compares ledgers with entries and operation records,
    sizes with values, and the schema with the migrations. The exit code is 1 if something is wrong.
    """
    stores = _verify(load_settings(config))
    ok = all(store.ok for store in stores)
    if as_json:
        print_json({"ok": ok, "stores": [store.to_dict() for store in stores]})
    else:
        for store in stores:
            _print(store)
    sys.exit(0 if ok else 1)


def _verify(settings: Settings) -> list[VerifiedStore]:
    console = error_console()
    columns = (SpinnerColumn(), TextColumn("verified {task.completed:,} entries"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        return list(verify_store(settings, lambda checked: progress.update(bar, completed=checked)))


def _print(store: VerifiedStore) -> None:
    if store.report is None:
        click.echo(f"{store.adapter}: this adapter has no check of its own")
        return
    _print_problems(store.report.problems, store.report.problem_count)
    click.echo(f"{store.adapter}: {_summary(store.report)}")


def _print_problems(problems: Sequence[StoreProblem], count: int) -> None:
    shown = problems[:_SHOWN_PROBLEMS]
    for problem in shown:
        place = "the store" if problem.namespace is None else f"namespace {shown_name(problem.namespace)}"
        click.echo(escaped_lines(f"{problem.check}: {place}: {problem.detail}"))
    if count > len(shown):
        click.echo(f"... and {count - len(shown):,} more")
    for problem in {problem.check: problem for problem in shown}.values():
        click.echo(f"{problem.check}: {advice_on(problem)}")


def _summary(report: VerifyReport) -> str:
    rows = (
        counted(report.namespaces, "namespace"),
        counted(report.entries, "entry", "entries"),
        counted(report.records, "operation record"),
    )
    found = counted(report.problem_count, "problem") if report.problem_count else "no problem"
    return f"checked {', '.join(rows)}: {found}"
