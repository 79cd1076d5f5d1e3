"""Callers of the runs' figures: processes that each open one peer, and run trips in one thread or several."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Barrier
from typing import Any, TypeAlias

from benchmarks import kvworker_runs
from benchmarks.trip import STEPS
from kvworker import KeyValueStore
from kvworker.inline import InlineKeyValueStore

#: Runs one trip durably, by the name of the run.
RunTrip: TypeAlias = Callable[[str], object]

_WARM_UPS = 3
_START_SECONDS = 120


@dataclass(frozen=True)
class Callers:
    """Processes, and the threads in each of them."""

    processes: int = 1
    threads: int = 1

    @property
    def name(self) -> str:
        """The words for them in a figure's name."""
        if self.threads > 1:
            return f"{self.threads} threads"
        return "1 caller" if self.processes == 1 else f"{self.processes} processes"


@dataclass(frozen=True)
class Trips:
    """The trips of a round: how long each took, and the span from the first one's beginning to the last one's end."""

    durations: list[float]
    span_seconds: float

    @property
    def steps_per_second(self) -> float:
        """The rate of all callers together."""
        return STEPS * len(self.durations) / self.span_seconds


def open_dbos(config: Mapping[str, Any], number: int) -> RunTrip:
    """Start DBOS in this process."""
    from benchmarks import dbos_runs  # noqa: PLC0415 - a process that measures kvworker does not import it

    dbos_runs.launch(config["url"], number)
    return dbos_runs.run_trip


def open_inline(config: Mapping[str, Any], _number: int) -> RunTrip:
    """Open kvworker on the database itself."""
    return partial(kvworker_runs.run_trip, InlineKeyValueStore(config["settings"]))


def open_queued(config: Mapping[str, Any], _number: int) -> RunTrip:
    """Open kvworker on its queue, which a worker serves."""
    return partial(kvworker_runs.run_trip, KeyValueStore(config["settings"]))


PEERS: Mapping[str, Callable[[Mapping[str, Any], int], RunTrip]] = {
    "DBOS": open_dbos,
    "inline": open_inline,
    "queued": open_queued,
}


class _Process:
    """What a process of the pool has opened."""

    def __init__(self, run_trip: RunTrip, start: Barrier, number: int) -> None:
        self.run_trip = run_trip
        self.start = start
        self.number = number

    def timed(self, run: str) -> tuple[float, float]:
        began = time.monotonic()
        self.run_trip(run)
        return began, time.monotonic()


_opened: list[_Process] = []


@contextmanager
def running_callers(peer: str, config: Mapping[str, Any], processes: int) -> Iterator[Executor]:
    """Start processes that each open the peer."""
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(processes):
        numbers.put(number)
    initial = (peer, dict(config), context.Barrier(processes), numbers)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_open, initargs=initial) as pool:
        yield pool


def _open(peer: str, config: Mapping[str, Any], start: Barrier, numbers: Any) -> None:
    number = numbers.get()
    _opened.append(_Process(PEERS[peer](config, number), start, number))


def run_trips(pool: Executor, callers: Callers, name: str, turns: int) -> Trips:
    """Let every caller run so many trips at the same moment. Each trip is a run of its own."""
    futures = [pool.submit(_run_trips, callers.threads, name, turns) for _ in range(callers.processes)]
    spans = [span for future in futures for span in future.result()]
    return Trips([end - begin for begin, end in spans], max(end for _, end in spans) - min(begin for begin, _ in spans))


def _run_trips(threads: int, name: str, turns: int) -> list[tuple[float, float]]:
    (process,) = _opened
    with ThreadPoolExecutor(threads) as pool:
        # Every thread connects, and prepares its statements.
        list(pool.map(process.timed, (f"{name} warm {process.number} {turn}" for turn in range(_WARM_UPS * threads))))
        process.start.wait(_START_SECONDS)
        return list(pool.map(process.timed, (f"{name} {process.number} {turn}" for turn in range(turns * threads))))


def trips_of(callers: Callers, turns: int) -> int:
    """Count the runs of ``run_trips``, its warm-ups included."""
    return callers.processes * callers.threads * (turns + _WARM_UPS)
