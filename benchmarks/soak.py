"""``python -m benchmarks.soak``: write to a fixed set of keys for long, and see whether the database keeps its size.

Time is compressed: records are kept for seconds, and prunes and PostgreSQL's autovacuum run every few seconds. The
soak fails if a table was larger in its second half than in its first, or if the store is inconsistent afterwards. The
number of records follows the rate of writes, so the machine must keep up with the rate all the time.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.table import Table

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.model import GeneratedOperationId, Operation, Step, new_operation_id
from tests.support.servers import running_postgres

WRITERS = 4
COALESCED = 32
#: The share of turns that are a single write, and not a coalesced message.
SINGLE_SHARE = 0.2
#: The share of operation ids that a caller chose.
CHOSEN_SHARE = 0.1
DELETE_SHARE = 0.1
NAMESPACES = 32
#: A namespace's keys of each kind, and how often one is written.
KEYS: Mapping[str, int] = {"plain": 60, "counter": 20, "expiring": 20}
WEIGHTS = (6, 2, 2)
TTL_SECONDS = (1.0, 10.0)
VALUE_SIZES = (40, 40, 40, 80, 400)
RETENTION = {"generated_id_retention_seconds": 20, "operation_retention_seconds": 60}
SWEEP_SECONDS = 1.0
PRUNE_SECONDS = 5.0
RECOMPUTE_SECONDS = 60.0
SAMPLE_SECONDS = 2.0
NAPTIME_SECONDS = 5
#: By how much a later maximum may exceed an earlier one: sizes vary with the moment of a prune.
TOLERATED_SHARE = 0.1
TOLERATED_BYTES = 262_144

console = Console(width=None if sys.stdout.isatty() else 120)

#: Bytes by table or file.
Sizes = Mapping[str, int]


class Sample(NamedTuple):
    """The sizes after so many writes and seconds."""

    writes: int
    seconds: float
    sizes: Sizes


class Writer:
    """Writes like a thread of a loaded worker: coalesced messages, and single calls between them."""

    def __init__(self, adapter: KeyValueStoreAdapter, number: int) -> None:
        self.written = 0
        self._adapter = adapter
        self._random = random.Random(number)  # noqa: S311 - nothing secret
        self._id_prefix = new_operation_id()

    def run(self, writes: int, rate: float, stop: threading.Event) -> None:
        """Make so many writes, at most ``rate`` of them a second."""
        started = time.monotonic()
        while self.written < writes and not stop.is_set():
            self._write_turn()
            time.sleep(max(0.0, started + self.written / rate - time.monotonic()))

    def _write_turn(self) -> None:
        size = 1 if self._random.random() < SINGLE_SHARE else COALESCED
        operations = [self._operation(self.written + number) for number in range(size)]
        results = self._adapter.apply_many(operations) if size > 1 else [None]
        for operation, result in zip(operations, results, strict=True):
            if result is None:
                self._adapter.apply_step(operation.namespace, operation.step, operation.operation_id)
        self.written += size

    def _operation(self, number: int) -> Operation:
        # The form of the ids that a caller's process makes.
        generated = GeneratedOperationId(f"{self._id_prefix}-{number:08x}")
        operation_id = f"order-{generated}" if self._random.random() < CHOSEN_SHARE else generated
        return Operation(f"session-{self._random.randrange(NAMESPACES):02}", self._step(), operation_id)

    def _step(self) -> Step:
        kind = self._random.choices(list(KEYS), WEIGHTS)[0]
        key = f"{kind}-{self._random.randrange(KEYS[kind])}"
        if self._random.random() < DELETE_SHARE:
            return Step("delete", key)
        if kind == "counter":
            return Step("increment", key)
        ttl_seconds = self._random.uniform(*TTL_SECONDS) if kind == "expiring" else None
        return Step("set", key, value="x" * self._random.choice(VALUE_SIZES), ttl_seconds=ttl_seconds)


def repeat(work: Callable[[], object], seconds: float, stop: threading.Event) -> None:
    """Do something every so many seconds, as beat and a worker of the maintenance queue do."""
    while not stop.wait(seconds):
        work()


def soak(adapter: KeyValueStoreAdapter, read_sizes: Callable[[], Sizes], writes: int, rate: float) -> list[Sample]:
    """Write, sweep, prune and recompute at once, and return samples of the sizes."""
    writers = [Writer(adapter, number) for number in range(WRITERS)]
    stop, started, samples = threading.Event(), time.monotonic(), list[Sample]()

    def sample() -> None:
        """Read the sizes, and show them after each twentieth of the writes."""
        written = sum(writer.written for writer in writers)
        shown = samples[-1].writes * 20 // writes if samples else -1
        samples.append(Sample(written, time.monotonic() - started, read_sizes()))
        if written * 20 // writes > shown:
            console.print(_line(samples[-1]))

    upkeep: list[tuple[Callable[[], object], float]] = [
        (partial(adapter.sweep_expired, batch_rows=200, budget_seconds=30), SWEEP_SECONDS),
        (partial(adapter.prune_operations, batch_rows=1000, budget_seconds=30), PRUNE_SECONDS),
        (partial(adapter.recompute_ledgers, budget_seconds=30), RECOMPUTE_SECONDS),
        (sample, SAMPLE_SECONDS),
    ]
    with ThreadPoolExecutor(WRITERS + len(upkeep)) as pool:
        writing = [pool.submit(writer.run, writes // WRITERS, rate / WRITERS, stop) for writer in writers]
        repeating = [pool.submit(repeat, work, seconds, stop) for work, seconds in upkeep]
        _await(writing, repeating, stop)
    sample()
    return samples


def _await(writing: list[Future[None]], repeating: list[Future[None]], stop: threading.Event) -> None:
    """Wait until all writes are made, and raise what any thread raised."""
    try:
        pending: set[Future[None]] = {*writing, *repeating}
        while pending & set(writing):
            done, pending = wait(pending, return_when=FIRST_EXCEPTION, timeout=1)
            for future in done:
                future.result()
    finally:
        stop.set()
    for future in repeating:
        future.result()


def grown_parts(samples: list[Sample]) -> list[str]:
    """Name the tables or files that were larger in the second half of the writes than in the first."""
    half = samples[-1].writes / 2
    grown = []
    for part in samples[-1].sizes:
        before = max((sample.sizes[part] for sample in samples if sample.writes <= half), default=0)
        after = max(sample.sizes[part] for sample in samples if sample.writes > half)
        if after > max(before * (1 + TOLERATED_SHARE), before + TOLERATED_BYTES):
            grown.append(part)
    return grown


def table_of(samples: list[Sample]) -> Table:
    """Format the sizes after a tenth, half and all of the writes, and the maxima of the two halves."""
    writes = samples[-1].writes
    half = writes / 2
    at = [next(sample for sample in samples if sample.writes >= writes * share) for share in (0.1, 0.5, 1)]
    headings = [f"{sample.writes:,} writes, {sample.seconds:,.0f} s" for sample in at]
    table = Table("MB", *headings, "most in the first half", "most in the second")
    for part in samples[-1].sizes:
        most = [max((s.sizes[part] for s in samples if (s.writes > half) is late), default=0) for late in (False, True)]
        table.add_row(part, *(f"{size / 1e6:.2f}" for size in (*(sample.sizes[part] for sample in at), *most)))
    return table


def _line(sample: Sample) -> str:
    return f"{sample.writes:,} writes, {sample.seconds:,.0f} s: {sum(sample.sizes.values()) / 1e6:.2f} MB"


@contextmanager
def soaked_postgres() -> Iterator[tuple[KeyValueStoreAdapter, Callable[[], Sizes]]]:
    """Run a PostgreSQL, and give a store in it and a way to read its tables' sizes, with their indexes."""
    with running_postgres(durable=True) as server:
        server.execute(f"ALTER SYSTEM SET autovacuum_naptime = {NAPTIME_SECONDS}")
        server.execute("SELECT pg_reload_conf()")
        config: dict[str, Any] = {"url": server.url(server.create_database()), **RETENTION}
        with create_kv_store_adapter("postgres", config) as adapter:

            def read_sizes() -> Sizes:
                """Return the bytes of each table and of its indexes."""
                return {
                    f"{table.name}{part}": size
                    for table in adapter.table_sizes() or ()
                    for part, size in (("", table.table_bytes), (", indexes", table.index_bytes or 0))
                }

            yield adapter, read_sizes


@contextmanager
def soaked_sqlite() -> Iterator[tuple[KeyValueStoreAdapter, Callable[[], Sizes]]]:
    """Make a SQLite file, and give a store in it and a way to read the sizes of the file and its log."""
    with tempfile.TemporaryDirectory(prefix="kvworker-soak-") as directory:
        file = Path(directory) / "kv.sqlite"
        config: dict[str, Any] = {"url": f"sqlite:///{file}", "migrate_on_start": True, **RETENTION}
        with create_kv_store_adapter("sqlite", config) as adapter:
            adapter.migrate()
            files = (file, file.with_name("kv.sqlite-wal"))
            yield adapter, lambda: {path.name: path.stat().st_size for path in files}


STORES = {"postgres": soaked_postgres, "sqlite": soaked_sqlite}


@click.command()
@click.option(
    "--store", "stores", type=click.Choice(list(STORES)), multiple=True, help="Soak one store. Default: each."
)
@click.option("--writes", type=click.IntRange(min=1000), default=2_000_000, show_default=True)
@click.option("--rate", type=click.FloatRange(min=1), default=1000, show_default=True, help="Writes a second, at most.")
def main(stores: tuple[str, ...], writes: int, rate: float) -> None:
    """Write to a fixed set of keys, and exit with 1 if the database grows or is inconsistent."""
    ok = True
    for name in stores or STORES:
        with STORES[name]() as (adapter, read_sizes):
            samples = soak(adapter, read_sizes, writes, rate)
            report = adapter.verify()
        grown = grown_parts(samples)
        console.print(table_of(samples))
        console.print(f"{name}: {'grown: ' + ', '.join(grown) if grown else 'no table grew in the second half'}")
        if report is not None:
            console.print(
                f"{name}: verified {report.entries:,} entries and {report.records:,} records:"
                f" {report.problem_count} problems"
            )
        ok = ok and not grown and report is not None and report.problem_count == 0
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
