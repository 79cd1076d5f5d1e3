"""Durable runs of three steps beside DBOS, on the same PostgreSQL.

DBOS runs in the caller's process, so its peer is the inline facade. The queued facade goes through Valkey and a worker.
Each peer has its own processes, which take turns: a slow machine slows all of them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from typing import Any

from benchmarks import dbos_runs, kvworker_runs
from benchmarks.durable_callers import Callers, Trips, run_trips, running_callers, trips_of
from benchmarks.rows import Row
from benchmarks.trip import STEPS
from benchmarks.workers import POOLS, benched_store, running_workers
from tests.support.servers import PostgresServer

CALLERS = (Callers(), Callers(threads=8), Callers(processes=8))
#: The peers, and what a figure calls them.
_OURS = {"inline": "inline", "queued": "through a worker"}
_DBOS = "DBOS"

_Sample = dict[str, Trips]


def run(
    postgres: PostgresServer,
    url: str,
    valkey_url: str,
    *,
    rounds: int,
    quick: bool,
    settings: Sequence[Callers] = CALLERS,
) -> Iterator[Row]:
    """Measure each peer with each number of callers, and yield two rows for each."""
    dbos_database = postgres.create_database(None)
    dbos_url = postgres.url(dbos_database)
    with benched_store(url, valkey_url) as store, ExitStack() as workers:
        workers.enter_context(running_workers(store, *POOLS[0]))
        ours = {"settings": _with_connections(store.settings.to_mapping())}
        configs: dict[str, Mapping[str, Any]] = {_DBOS: {"url": dbos_url}, "inline": ours, "queued": ours}
        expected = 0
        for callers in settings:
            turns = (8 if quick else 40) // (callers.threads * callers.processes) * 3
            samples = list(_measure(configs, callers, rounds, turns))
            expected += rounds * trips_of(callers, turns)
            yield from _rows(callers, samples)
        _check(_DBOS, dbos_runs.recorded(dbos_url), expected)
        postgres.drop_database(dbos_database)
        _check("kvworker", kvworker_runs.recorded(url), len(_OURS) * expected)


def _with_connections(settings: dict[str, Any]) -> dict[str, Any]:
    """Give each thread a connection, as DBOS does by default."""
    settings["tools"]["kv_store"]["adapters"]["postgres"]["pool"] = {"size": CALLERS[1].threads}
    return settings


def _measure(configs: Mapping[str, Mapping[str, Any]], callers: Callers, rounds: int, turns: int) -> Iterator[_Sample]:
    with ExitStack() as pools:
        running: dict[str, Executor] = {
            peer: pools.enter_context(running_callers(peer, config, callers.processes))
            for peer, config in configs.items()
        }
        for number in range(rounds):
            name = f"{callers.name}, round {number}"
            yield {peer: run_trips(pool, callers, f"{peer}, {name}", turns) for peer, pool in running.items()}


def _rows(callers: Callers, samples: list[_Sample]) -> Iterator[Row]:
    for peer, label in _OURS.items():
        yield _row(f"run of {STEPS} steps, {label}, {callers.name}", "ms (p50)", peer, samples)
        yield _row(f"steps of durable runs, {label}, {callers.name}", "steps/s", peer, samples)


def _row(name: str, unit: str, peer: str, samples: list[_Sample]) -> Row:
    measured = [(_figure(unit, sample[peer]), _figure(unit, sample[_DBOS])) for sample in samples]
    return {
        "name": name,
        "unit": unit,
        "median": statistics.median(own for own, _ in measured),
        "floor": _DBOS,
        "floor_median": statistics.median(peer for _, peer in measured),
        "ratio": statistics.median(own / peer for own, peer in measured),
    }


def _figure(unit: str, trips: Trips) -> float:
    return trips.steps_per_second if unit == "steps/s" else statistics.median(trips.durations) * 1000


def _check(peer: str, recorded: tuple[int, int], trips: int) -> None:
    """Raise unless the database holds each run and each of its steps: a peer that records nothing is fast."""
    if recorded != (trips, trips * STEPS):
        raise RuntimeError(f"{peer} has recorded {recorded} of {trips} runs and their {STEPS} steps each")
