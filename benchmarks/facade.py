"""Round trips through the facade against C, the round trip of a no-op task of a stock Celery application.

Both go through the same Valkey, to a worker of the same pool and concurrency, from the same process, in
turns; kvworker's worker has PostgreSQL behind. C does no work at all, so a ratio tells what a stored
operation costs beside an empty task.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks import noop
from benchmarks.rows import Row
from benchmarks.workers import KEYS, NAMESPACE, POOLS, VALUE, benched_store, running_workers
from kvworker import KeyValueStore

CALLER_THREADS = 8
CALL_TIMEOUT_SECONDS = 20

BATCH = 100
_BATCH = [{"tool": "kv_set", "key": f"key-{number}", "value": VALUE} for number in range(BATCH)]

PIPELINED = 1000
PIPELINED_NAMESPACES = 8

Call = Callable[[int], Any]
Calls = Mapping[str, Call]
Sample = dict[str, float]


@dataclass(frozen=True)
class Effort:
    """The number of rounds, and of calls of each kind in a round."""

    rounds: int
    calls: int


@dataclass(frozen=True)
class Measure:
    """Measures all calls once, in one unit."""

    name: str
    unit: str
    sample: Callable[[Calls, int], Sample]


def p50_milliseconds(calls: Calls, count: int) -> Sample:
    """Give each call's median duration. One caller makes the calls in turn, one after the other."""
    durations: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count):
        for name, call in calls.items():
            started = time.perf_counter()
            call(number)
            durations[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) * 1000 for name, seconds in durations.items()}


def calls_per_second(calls: Calls, count: int) -> Sample:
    """Give the rate of each call with 8 threads that make it at once."""
    with ThreadPoolExecutor(CALLER_THREADS) as threads:
        return {name: _rate(threads, call, count * CALLER_THREADS // 2) for name, call in calls.items()}


def _rate(threads: ThreadPoolExecutor, call: Call, count: int) -> float:
    # Each thread connects before the clock starts.
    list(threads.map(call, range(CALLER_THREADS)))
    started = time.perf_counter()
    list(threads.map(call, range(count)))
    return count / (time.perf_counter() - started)


MEASURES = (
    Measure("1 caller", "ms (p50)", p50_milliseconds),
    Measure(f"{CALLER_THREADS} callers", "calls/s", calls_per_second),
)


def run(postgres_url: str, valkey_url: str, effort: Effort) -> Iterator[Row]:
    """Measure every pool, and yield a row for each call and measure."""
    with benched_store(postgres_url, valkey_url) as store:
        for pool, concurrency in POOLS:
            with running_workers(store, pool, concurrency):
                yield from _measure_pool(f"{pool} -c {concurrency}", _calls(store), effort)
                yield _measure_pipeline(f"{pool} -c {concurrency}", store, effort)


def _calls(store: KeyValueStore) -> Calls:
    """Give each call by name. The first is C."""
    return {
        "C": lambda _: noop.noop.delay().get(timeout=CALL_TIMEOUT_SECONDS),
        "get": lambda number: store.get(NAMESPACE, f"key-{number % KEYS}", timeout=CALL_TIMEOUT_SECONDS),
        "set": lambda number: store.set(NAMESPACE, f"key-{number % KEYS}", VALUE, timeout=CALL_TIMEOUT_SECONDS),
        f"batch of {BATCH} sets": lambda number: store.batch(
            f"{NAMESPACE} {number % KEYS}", _BATCH, timeout=CALL_TIMEOUT_SECONDS
        ),
    }


def _measure_pool(pool: str, calls: Calls, effort: Effort) -> Iterator[Row]:
    p50_milliseconds(calls, max(20, effort.calls // 5))
    for measure in MEASURES:
        samples = [measure.sample(calls, effort.calls) for _ in range(effort.rounds)]
        yield from (_row(pool, measure, name, samples) for name in calls if name != "C")


def _row(pool: str, measure: Measure, name: str, samples: list[Sample]) -> Row:
    return {
        "name": f"facade {name}, {measure.name}, {pool}",
        "unit": measure.unit,
        "median": statistics.median(sample[name] for sample in samples),
        "floor": "C",
        "floor_median": statistics.median(sample["C"] for sample in samples),
        "ratio": statistics.median(sample[name] / sample["C"] for sample in samples),
    }


def _measure_pipeline(pool: str, store: KeyValueStore, effort: Effort) -> Row:
    """Compare the rate of sets in one pipeline with the rate of single sets."""
    samples = [(_pipelined_rate(store), _set_rate(store, effort.calls)) for _ in range(effort.rounds)]
    return {
        "name": f"facade pipeline of {PIPELINED} sets over {PIPELINED_NAMESPACES} namespaces, 1 caller, {pool}",
        "unit": "sets/s",
        "median": statistics.median(pipelined for pipelined, _ in samples),
        "floor": "set",
        "floor_median": statistics.median(single for _, single in samples),
        "ratio": statistics.median(pipelined / single for pipelined, single in samples),
    }


def _pipelined_rate(store: KeyValueStore) -> float:
    started = time.perf_counter()
    with store.pipeline(timeout=CALL_TIMEOUT_SECONDS) as pipeline:
        for number in range(PIPELINED):
            pipeline.set(*_pipelined_entry(number), VALUE)
    return PIPELINED / (time.perf_counter() - started)


def _set_rate(store: KeyValueStore, count: int) -> float:
    started = time.perf_counter()
    for number in range(count):
        store.set(*_pipelined_entry(number), VALUE, timeout=CALL_TIMEOUT_SECONDS)
    return count / (time.perf_counter() - started)


def _pipelined_entry(number: int) -> tuple[str, str]:
    return f"{NAMESPACE} {number % PIPELINED_NAMESPACES}", f"key-{number}"
