"""``python -m tests.chaos`` runs every scenario, or the named ones."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.chaos.cluster import running_cluster
from tests.chaos.effects.run import EffectsScenario
from tests.chaos.needs import chaos_postgres
from tests.chaos.report import Report
from tests.chaos.run import run
from tests.chaos.scenario import Scenario
from tests.chaos.scenarios import SCENARIOS
from tests.support.servers import PostgresServer

#: Without a terminal the console is wide enough to keep a row on one line.
console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def perform(scenario: Scenario | EffectsScenario, postgres: PostgresServer, *, seed: int, seconds: float) -> Report:
    """Run a scenario on its own cluster, and keep the cluster's directory if there are violations."""
    directory = Path(tempfile.mkdtemp(prefix="kvworker-chaos-"))
    try:
        with running_cluster(directory, scenario.needs, postgres) as cluster:
            report = run(scenario, cluster, seed=seed, seconds=seconds)
    except Exception as error:  # noqa: BLE001 - the other scenarios must still run
        report = Report(scenario.name, seed, 0.0, violations=[f"{type(error).__name__}: {error}"])
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    if not report.violations:
        shutil.rmtree(directory, ignore_errors=True)
        return report
    if postgres.log.exists():
        shutil.copy(postgres.log, directory / "postgres.log")
    console.print(f"[bold]{scenario.name}[/bold]: logs and history are in {directory}")
    return report


def perform_all(scenarios: Sequence[Scenario | EffectsScenario], seed: int, seconds: float | None) -> Iterator[Report]:
    """Run scenarios one after the other, and print the report of each."""
    with chaos_postgres() as postgres, console.status("starting ...") as status:
        for scenario in scenarios:
            if scenario.needs.unmet_need:
                console.print(f"[bold]{scenario.name}[/bold] is skipped: {scenario.needs.unmet_need}")
                continue
            status.update(f"{scenario.name}: {scenario.description}")
            report = perform(scenario, postgres, seed=seed, seconds=scenario.seconds if seconds is None else seconds)
            show(report)
            yield report


def show(report: Report) -> None:
    """Print the report of a scenario."""
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items())
    verdict = f"[red]{len(report.violations)} violations[/red]" if report.violations else "[green]no violation[/green]"
    console.print(
        f"[bold]{report.scenario}[/bold] (seed {report.seed}, {report.seconds:.0f} s): {report.operations} operations,"
        f" {report.calls} calls, {report.faults} faults, {report.observations} observations; {verdict}"
    )
    console.print(
        f"  {outcomes}; p50 {report.p50_seconds * 1000:.1f} ms, p99 {report.p99_seconds * 1000:.0f} ms,"
        f" longest {report.longest_seconds:.2f} s; first success after a fault within {report.recovery_seconds:.2f} s"
    )
    for name, figure in report.figures.items():
        console.print(f"  {name}: {figure}")
    for violation in report.violations:
        console.print(f"  [red]-[/red] {escape(violation)}", soft_wrap=True)


def make_table(reports: Sequence[Report]) -> Table:
    """Make a table of all reports."""
    table = Table("scenario", "outcomes", title="Faults under load")
    for heading in ("operations", "calls", "faults", "p50 ms", "p99 ms", "longest s", "recovery s", "violations"):
        table.add_column(heading, justify="right")
    for report in reports:
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in report.outcomes.items())
        figures = (report.operations, report.calls, report.faults)
        table.add_row(
            report.scenario,
            outcomes,
            *map(str, figures),
            f"{report.p50_seconds * 1000:.1f}",
            f"{report.p99_seconds * 1000:.0f}",
            f"{report.longest_seconds:.2f}",
            f"{report.recovery_seconds:.2f}",
            str(len(report.violations)),
        )
    return table


def select_scenarios(names: Sequence[str]) -> list[Scenario | EffectsScenario]:
    """Select the scenarios with these names, or all of them."""
    known = {scenario.name: scenario for scenario in SCENARIOS}
    if unknown := [name for name in names if name not in known]:
        raise click.BadParameter(f"unknown scenario {', '.join(unknown)}; --list shows all of them")
    return [known[name] for name in names] if names else list(SCENARIOS)


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--seconds", type=click.FloatRange(min=0), help="Duration of the faults in a scenario [default: 20, the soak 600]."
)
@click.option("--seed", type=int, help="Seed of the random load and faults [default: a new one each time].")
@click.option("--list", "only_list", is_flag=True, help="Show the scenarios and end.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the reports to this file.")
def main(
    names: tuple[str, ...], seconds: float | None, seed: int | None, file: Path | None, *, only_list: bool
) -> None:
    """Inject faults under load, and compare what callers were told with the database."""
    scenarios = select_scenarios(names)
    if only_list:
        for scenario in scenarios:
            console.print(f"[bold]{scenario.name}[/bold]: {scenario.description}")
        return
    # Exit normally on SIGTERM, so that all started processes are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    reports = list(perform_all(scenarios, seed, seconds))
    console.print(make_table(reports))
    if file is not None:
        file.write_text(json.dumps([report.to_dict() for report in reports], indent=2) + "\n")
    sys.exit(any(report.violations for report in reports))


if __name__ == "__main__":
    main()
