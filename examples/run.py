"""Run the pipeline twice, and compare kvworker's counters with a direct count.

``python -m examples.run [PACKAGE ...]`` needs ``KVWORKER_CONFIG``, a running kvworker and the pipeline's worker, which
``python -m examples.demo`` starts for you. It exits with 1 if a total is wrong.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from examples.pipeline import MEMO, RUNS, counters_namespace, progress_key, read_package, record_key, store
from examples.source_files import COUNTERS, count_directly, python_files
from kvworker.errors import NamespaceQuotaExceededError

if TYPE_CHECKING:
    from celery.result import AsyncResult

SCRATCH = "pipeline.scratch"
SCRATCH_TTL_SECONDS = 600
MAX_RUN_SECONDS = 100

console = Console()

Totals = dict[str, dict[str, int]]


def run_pipeline(packages: Sequence[str], title: str) -> list[dict[str, Any]]:
    """Run the pipeline once over the packages with a progress bar, and return its records."""
    run = uuid.uuid4().hex
    files = sum(len(python_files(package)) for package in packages)
    results = [read_package(run, package).delay() for package in packages]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=files)
        for done in watch(run, results):
            progress.update(bar, completed=done)
    return [cast("dict[str, Any]", store.get(RUNS, record_key(run, package)).value) for package in packages]


def watch(run: str, results: Sequence[AsyncResult]) -> Iterator[int]:
    """Yield the number of files read until every result has arrived, and then once more.

    Raises:
        TimeoutError: The run took longer than ``MAX_RUN_SECONDS``.
    """
    give_up_at = time.monotonic() + MAX_RUN_SECONDS
    while not all(result.ready() for result in results):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"the run did not end within {MAX_RUN_SECONDS} s; see the pipeline worker's log")
        yield files_done(run)
        time.sleep(0.2)
    for result in results:
        result.get(timeout=5)
        result.forget()
    yield files_done(run)


def files_done(run: str) -> int:
    """Return the number of files that a run has read, 0 before the first."""
    return cast("int", store.get(RUNS, progress_key(run)).value or 0)


def read_counters(packages: Sequence[str]) -> Totals:
    """Read the counters from kvworker. A missing counter is 0."""
    return {
        package: {
            counter: cast("int", store.get(counters_namespace(package), counter).value or 0) for counter in COUNTERS
        }
        for package in packages
    }


def totals_table(counted: Totals, direct: Totals) -> Table:
    """Put kvworker's counters beside the direct count."""
    table = Table("package", "counter", title="Counters in kvworker and a direct count without it")
    for heading in ("kvworker", "direct count", ""):
        table.add_column(heading, justify="right")
    for package, counters in direct.items():
        for counter, expected in counters.items():
            actual = counted[package][counter]
            verdict = "[green]equal[/]" if actual == expected else "[bold red]WRONG[/]"
            table.add_row(package, counter, f"{actual:,}", f"{expected:,}", verdict)
        table.add_section()
    return table


def show_records(records: Sequence[dict[str, Any]]) -> None:
    """Print each run's record."""
    for record in records:
        console.print(
            f"  {record['package']}: {record['files']} files, {record['memo_hits']} from the memo,"
            f" {record['counters_moved']} increments applied"
        )


def show_expiry(ttl_seconds: float = 1.0) -> bool:
    """Write an entry with a TTL and watch it expire.

    Returns:
        True if the entry existed at first and had expired at the end.
    """
    store.set(SCRATCH, "lease", {"holder": "agent-7"}, ttl_seconds=ttl_seconds)
    first = store.get(SCRATCH, "lease")
    console.print(f"A lease with a TTL of {ttl_seconds} s: found={first.found}, {first.ttl_seconds or 0:.2f} s remain")
    started = time.monotonic()
    while (found := store.get(SCRATCH, "lease").found) and time.monotonic() < started + ttl_seconds + 5:
        time.sleep(0.05)
    console.print(f"  {time.monotonic() - started:.2f} s later: found={found}")
    return first.found and not found


def show_quota(document_bytes: int = 50_000, max_documents: int = 1000) -> bool:
    """Fill a namespace until its quota refuses a write.

    Returns:
        True if a write was refused and stored nothing.
    """
    for number in range(max_documents):
        key = f"document-{number}"
        try:
            store.set(SCRATCH, key, "x" * document_bytes, ttl_seconds=SCRATCH_TTL_SECONDS)
        except NamespaceQuotaExceededError as error:
            console.print(f"After {number} documents of {document_bytes:,} bytes: {type(error).__name__}: {error}")
            for written in range(number):
                store.delete(SCRATCH, f"document-{written}")
            return error.used_bytes <= error.quota_bytes and not store.get(SCRATCH, key).found
    return False


def check_totals(packages: Sequence[str]) -> list[str]:
    """Run the pipeline twice, and return one line for each wrong total."""
    console.print(
        f"Reading every Python file of {', '.join(packages)}. {MEMO} keeps a memo of each summary by content hash,"
        " so files with the same content share one, even in the first run"
    )
    show_records(run_pipeline(packages, "first run"))
    counted, direct = read_counters(packages), {package: count_directly(package) for package in packages}
    console.print(totals_table(counted, direct))
    again = run_pipeline(packages, "same again")
    show_records(again)
    recounted = read_counters(packages)
    console.print(f"  counters before and after the second run: {'equal' if recounted == counted else 'DIFFERENT'}")
    problems = []
    if counted != direct:
        problems.append("kvworker's counters differ from the direct count")
    if recounted != counted or any(record["counters_moved"] for record in again):
        problems.append("the second run moved a counter")
    if any(record["memo_hits"] != record["files"] for record in again):
        problems.append("the second run missed a memo")
    return problems


@click.command()
@click.argument("packages", nargs=-1)
def main(packages: tuple[str, ...]) -> None:
    """Run the pipeline over PACKAGES (default: celery and sqlalchemy) and check its totals."""
    with store:
        problems = check_totals(packages or ("celery", "sqlalchemy"))
        if not show_expiry():
            problems.append("an entry outlived its TTL")
        if not show_quota():
            problems.append("no quota refused")
    for problem in problems:
        console.print(f"[bold red]FAILED[/]: {problem}")
    if problems:
        sys.exit(1)
    console.print("[bold green]Every total is right.[/]")


if __name__ == "__main__":
    main()
