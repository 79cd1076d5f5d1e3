"""``python -m benchmarks.soak``: write to a fixed set of keys for long, and see whether the database keeps its size.

Time is compressed: records are kept for seconds, and prunes and PostgreSQL's autovacuum run every few seconds. The
soak fails if a table was larger in its second half than in its first, or if the store is inconsistent afterwards. A
busy machine writes at a varying rate, so if there were more records at a time, a table may be larger by as much.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, create_engine, text

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
#: By how much a later maximum may exceed an earlier one beyond that: sizes vary with the moment of a prune.
TOLERATED_SHARE = 0.1
TOLERATED_BYTES = 262_144

console = Console(width=None if sys.stdout.isatty() else 120)

#: Bytes by table or file.
Sizes = Mapping[str, int]


class Sample(NamedTuple):
    """The number of records and the sizes after so many writes and seconds."""

    writes: int
    seconds: float
    records: int
    sizes: Sizes


@dataclass(frozen=True)
class SoakedStore:
    """A store, its database, and a way to read the sizes of its parts."""

    adapter: KeyValueStoreAdapter
    engine: Engine
    read_sizes: Callable[[], Sizes]

    def count_records(self) -> int:
        """Count the operation records."""
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM kv_records")).scalar_one())


class Writer:
    """Writes like a thread of a loaded worker: coalesced messages, and single calls between them."""

    def __init__(self, adapter: KeyValueStoreAdapter, number: int) -> None:
        self.written = 0
        self._adapter = adapter
        self._random = random.Random(number)  # noqa: S311 - nothing secret
        self._id_prefix = new_operation_id()

    def run(self, writes: int, rate: float, stop: threading.Event) -> None:
        """Make so many writes, at most ``rate`` of them a second. It does not make up for a delay."""
        due = time.monotonic()
        while self.written < writes and not stop.is_set():
            due = max(due + self._write_turn() / rate, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _write_turn(self) -> int:
        """Return how many writes it made."""
        size = 1 if self._random.random() < SINGLE_SHARE else COALESCED
        operations = [self._operation(self.written + number) for number in range(size)]
        results = self._adapter.apply_many(operations) if size > 1 else [None]
        for operation, result in zip(operations, results, strict=True):
            if result is None:
                self._adapter.apply_step(operation.namespace, operation.step, operation.operation_id)
        self.written += size
        return size

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


def soak(store: SoakedStore, writes: int, rate: float) -> list[Sample]:
    """Write, sweep, prune and recompute at once, and return samples of the sizes."""
    adapter = store.adapter
    writers = [Writer(adapter, number) for number in range(WRITERS)]
    stop, started, samples = threading.Event(), time.monotonic(), list[Sample]()

    def sample() -> None:
        """Read the sizes, and show them after each twentieth of the writes."""
        written = sum(writer.written for writer in writers)
        shown = samples[-1].writes * 20 // writes if samples else -1
        samples.append(Sample(written, time.monotonic() - started, store.count_records(), store.read_sizes()))
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
    first, second = _halves(samples)
    more_records = max(1.0, _most(second, lambda sample: sample.records) / max(1, _most(first, lambda s: s.records)))

    def is_grown(part: str) -> bool:
        """Compare the maxima of a part."""
        before, after = (_most(half, lambda sample: sample.sizes[part]) for half in (first, second))
        return after > more_records * before + max(before * TOLERATED_SHARE, TOLERATED_BYTES)

    return [part for part in samples[-1].sizes if is_grown(part)]


def _halves(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    middle = samples[-1].writes / 2
    return [s for s in samples if s.writes <= middle], [s for s in samples if s.writes > middle]


def _most(samples: list[Sample], read: Callable[[Sample], int]) -> int:
    return max((read(sample) for sample in samples), default=0)


def table_of(samples: list[Sample]) -> Table:
    """Format the sizes after a tenth, half and all of the writes, and the maxima of the two halves."""
    last = samples[-1]
    at = [next(sample for sample in samples if sample.writes >= last.writes * share) for share in (0.1, 0.5, 1)]
    headings = [f"{sample.writes:,} writes, {sample.seconds:,.0f} s" for sample in at]
    table = Table("", *headings, "most in the first half", "most in the second")
    halves = _halves(samples)

    def add_row(name: str, form: str, read: Callable[[Sample], float]) -> None:
        """Add a number as of these moments, and its maxima."""
        maxima = (max(map(read, half), default=0) for half in halves)
        table.add_row(name, *(form.format(number) for number in (*map(read, at), *maxima)))

    add_row("records", "{:,}", lambda sample: sample.records)
    for part in last.sizes:
        add_row(part, "{:.2f} MB", lambda sample: sample.sizes[part] / 1e6)  # noqa: B023 - used at once
    return table


def _line(sample: Sample) -> str:
    size = sum(sample.sizes.values()) / 1e6
    return f"{sample.writes:,} writes, {sample.seconds:,.0f} s: {sample.records:,} records, {size:.2f} MB"


@contextmanager
def soaked_postgres() -> Iterator[SoakedStore]:
    """Run a PostgreSQL, and give a store in it. The sizes are those of its tables and of their indexes.

    It does not wait for the disk, which changes no size.
    """
    with running_postgres() as server:
        server.execute(f"ALTER SYSTEM SET autovacuum_naptime = {NAPTIME_SECONDS}")
        server.execute("SELECT pg_reload_conf()")
        with _opened("postgres", server.url(server.create_database())) as (adapter, engine):

            def read_sizes() -> Sizes:
                """Return the bytes of each table and of its indexes."""
                return {
                    f"{table.name}{part}": size
                    for table in adapter.table_sizes() or ()
                    for part, size in (("", table.table_bytes), (", indexes", table.index_bytes or 0))
                }

            yield SoakedStore(adapter, engine, read_sizes)


@contextmanager
def soaked_sqlite() -> Iterator[SoakedStore]:
    """Make a SQLite file, and give a store in it. The sizes are those of the file and of its log."""
    with tempfile.TemporaryDirectory(prefix="kvworker-soak-") as directory:
        file = Path(directory) / "kv.sqlite"
        files = (file, file.with_name("kv.sqlite-wal"))
        with _opened("sqlite", f"sqlite:///{file}") as (adapter, engine):
            yield SoakedStore(adapter, engine, lambda: {path.name: path.stat().st_size for path in files})


@contextmanager
def _opened(name: str, url: str) -> Iterator[tuple[KeyValueStoreAdapter, Engine]]:
    engine = create_engine(url)
    with create_kv_store_adapter(name, {"url": url, "migrate_on_start": True, **RETENTION}) as adapter:
        adapter.check_usable()
        yield adapter, engine
        engine.dispose()


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
        with STORES[name]() as store:
            samples = soak(store, writes, rate)
            report = store.adapter.verify()
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
