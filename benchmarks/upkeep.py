"""The cost of a large store: a set in a namespace of a million rows, and a sweep of a million expired rows."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor

from benchmarks.clients import run_timed, running_clients
from benchmarks.rows import Row
from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from tests.support.servers import PostgresServer

ROWS = 1_000_000
FEW_ROWS = 10
WRITERS = 2
QUIET_SECONDS = 3.0
SLICE_SECONDS = 0.2
_PLAIN_DELETE = "DELETE FROM kv_entries WHERE expires_at <= now()"
#: Inserts rows of one size. With ``_EXPIRED``, a thousand of them expire in each second, as with one TTL for all.
_FILL = (
    "INSERT INTO kv_entries (namespace, key, value, expires_at, size_bytes, previous_bytes, version)"
    " SELECT {namespace}, 'key ' || i, '\"' || repeat('x', 98) || '\"', {expiry}, 100, 0, 1"
    " FROM generate_series(1, {rows}) i"
)
_EXPIRED = "now() - interval '1 hour' + i * interval '1 ms'"


def run(postgres: PostgresServer, *, rounds: int, quick: bool) -> Iterator[Row]:
    """Measure both, and yield a row for each figure."""
    rows = ROWS // 20 if quick else ROWS
    yield _measure_growth(postgres, rows, rounds)
    yield from _measure_sweep(postgres, rows, min(rounds, 5))


def _measure_growth(postgres: PostgresServer, rows: int, rounds: int) -> Row:
    database = postgres.create_database()
    config = {"url": postgres.url(database), "namespace_quota_bytes": 2**40}
    for namespace, count in (("small", FEW_ROWS), ("large", rows)):
        postgres.execute(_FILL.format(namespace=f"'{namespace}'", expiry="NULL", rows=count), database)
    postgres.execute("VACUUM ANALYZE kv_entries", database)
    with create_kv_store_adapter("postgres", config) as adapter:
        adapter.recompute_ledgers()
        samples = [_growth_sample(adapter, rows) for _ in range(rounds)]
    name = f"store set of another size, in a namespace of {rows:,} rows"
    return _row(name, "ms (p50)", f"in one of {FEW_ROWS} rows", samples)


def _growth_sample(adapter: KeyValueStoreAdapter, rows: int) -> tuple[float, float]:
    durations: dict[str, list[float]] = {"large": [], "small": []}
    for turn in range(1000):
        for namespace, count in (("large", rows), ("small", FEW_ROWS)):
            key = f"key {1 + turn * 7919 % count}"
            started = time.perf_counter()
            adapter.set(namespace, key, "y" * (turn // 7 % 50))
            durations[namespace].append(time.perf_counter() - started)
    return statistics.median(durations["large"]) * 1000, statistics.median(durations["small"]) * 1000


def _measure_sweep(postgres: PostgresServer, rows: int, rounds: int) -> Iterator[Row]:
    database = postgres.create_database()
    config = {"url": postgres.url(database), "namespace_quota_bytes": 2**40}
    alone, beside, tails = [], [], []
    with create_kv_store_adapter("postgres", config) as adapter, running_clients(config, WRITERS) as pool:
        for _ in range(rounds):
            _fill_expired(postgres, database, adapter, rows)
            floor = rows / _seconds(lambda: postgres.execute(_PLAIN_DELETE, database))
            _fill_expired(postgres, database, adapter, rows)
            alone.append((rows / _seconds(lambda: _sweep(adapter)), floor))
            _fill_expired(postgres, database, adapter, rows)
            before = _p99_milliseconds(pool, _after(QUIET_SECONDS))
            seconds: list[float] = []
            sweeper = threading.Thread(target=lambda: seconds.append(_seconds(lambda: _sweep(adapter))))  # noqa: B023
            sweeper.start()
            tails.append((_p99_milliseconds(pool, lambda: not sweeper.is_alive()), before))  # noqa: B023
            beside.append((rows / seconds[0], floor))
    yield _row(f"sweep of {rows:,} rows", "rows/s", "one DELETE", alone)
    yield _row(f"sweep of {rows:,} rows beside {WRITERS} writers", "rows/s", "one DELETE alone", beside)
    yield _row(f"store set, {WRITERS} clients, beside that sweep", "ms (p99)", "without it", tails)


def _p99_milliseconds(pool: Executor, done: Callable[[], bool]) -> float:
    """Measure sets that change their entry's size until ``done`` is true."""
    durations: list[float] = []
    while not done():
        futures = [pool.submit(run_timed, "set growing", SLICE_SECONDS) for _ in range(WRITERS)]
        durations += [seconds for future in futures for seconds in future.result()]
    return statistics.quantiles(durations, n=100)[98] * 1000


def _after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _fill_expired(postgres: PostgresServer, database: str, adapter: KeyValueStoreAdapter, rows: int) -> None:
    postgres.execute("TRUNCATE kv_entries, kv_ledgers", database)
    postgres.execute(_FILL.format(namespace="'expired ' || i % 100", expiry=_EXPIRED, rows=rows), database)
    postgres.execute("VACUUM ANALYZE kv_entries", database)
    adapter.recompute_ledgers(budget_seconds=600)
    postgres.execute("CHECKPOINT", database)


def _sweep(adapter: KeyValueStoreAdapter) -> None:
    report = adapter.sweep_expired(budget_seconds=600)
    if not report.complete:
        raise RuntimeError("the sweep did not end in time")


def _row(name: str, unit: str, floor: str, samples: list[tuple[float, float]]) -> Row:
    return {
        "name": name,
        "unit": unit,
        "median": statistics.median(value for value, _ in samples),
        "floor": floor,
        "floor_median": statistics.median(value for _, value in samples),
        "ratio": statistics.median(value / base for value, base in samples),
    }
