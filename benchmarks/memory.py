"""The memory of all of a worker's processes, idle and after many operations, against a bare Celery worker's.

A page that processes share is divided among them (PSS), so that a pool's children do not count their parent's pages
again.
"""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from benchmarks.rows import Row
from benchmarks.workers import NAMESPACE, POOLS, VALUE, benched_store, running_workers
from kvworker import KeyValueStore
from kvworker.ops.local.child_processes import Child

OPERATIONS = 100_000
#: One in ten operations is sent in its own message; the others are pipelined.
_SINGLE = 10
_GROUP = 1000
_TIMEOUT_SECONDS = 60


def run(postgres_url: str, valkey_url: str, *, quick: bool) -> Iterator[Row]:
    """Measure the workers of every pool, and yield two rows for each."""
    operations = OPERATIONS // 20 if quick else OPERATIONS
    with benched_store(postgres_url, valkey_url) as store:
        for pool, concurrency in POOLS:
            yield from _measure_pool(store, pool, concurrency, operations)


def _measure_pool(store: KeyValueStore, pool: str, concurrency: int, operations: int) -> Iterator[Row]:
    name = f"{pool} -c {concurrency}"
    with running_workers(store, pool, concurrency) as (bare, ours):
        # After these, every process of the pool has connected and imported its modules.
        _operate(store, operations // 100)
        bare_mib, idle_mib = _mebibytes(bare), _mebibytes(ours)
        yield _row(f"worker memory, first operations, {name}", idle_mib, "a bare Celery worker", bare_mib)
        _operate(store, operations)
        after = f"worker memory, {operations:,} operations later, {name}"
        yield _row(after, _mebibytes(ours), "after the first operations", idle_mib)


def _operate(store: KeyValueStore, operations: int) -> None:
    for begin in range(0, operations, _GROUP):
        for number in range(begin, begin + _GROUP // _SINGLE):
            store.increment(NAMESPACE, f"counter-{number % 100}", timeout=_TIMEOUT_SECONDS)
        with store.pipeline(timeout=_TIMEOUT_SECONDS) as pipeline:
            for number in range(_GROUP - _GROUP // _SINGLE):
                pipeline.set(f"{NAMESPACE} {number % 8}", f"key-{number}", VALUE)


def _mebibytes(worker: Child) -> float:
    process = psutil.Process(worker.process.pid)
    family = [process, *process.children(recursive=True)]
    return float(sum(member.memory_full_info().pss for member in family)) / 2**20


def _row(name: str, mebibytes: float, floor: str, floor_mebibytes: float) -> Row:
    return {
        "name": name,
        "unit": "MiB",
        "median": mebibytes,
        "floor": floor,
        "floor_median": floor_mebibytes,
        "ratio": mebibytes / floor_mebibytes,
    }
