"""Store operations against F, the bare statement that does the same without quota, TTL or operation id.

Clients are processes, or threads of one process like a worker's. The same clients run F, each on its own connection. A
round measures all operations and floors in turn, so that a slow machine slows both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from benchmarks.clients import BATCH, COALESCED, run_turns, running_clients, running_threads
from benchmarks.rows import Row
from tests.support.servers import PostgresServer

_FLOORS = {
    "floor set": "F (upsert)",
    "floor batch": f"{BATCH} F (upserts)",
    "floor coalesced": f"{COALESCED} F (upserts)",
    "floor get": "F (select)",
}


@dataclass(frozen=True)
class Comparison:
    """An operation and its floor.

    ``shared`` puts all clients into one namespace. ``weight`` divides the number of turns of an operation that takes as
    long as so many others.
    """

    name: str
    operation: str
    floor: str
    shared: bool = False
    weight: int = 1


SET = Comparison("set", "set", "floor set")
GROWING = Comparison("set, every one grows or shrinks", "set growing", "floor set")
COALESCED_SETS = Comparison(f"{COALESCED} sets coalesced", "coalesced", "floor coalesced", weight=COALESCED // 2)
COALESCED_GROWING = Comparison(
    f"{COALESCED} sets coalesced, every one grows or shrinks",
    "coalesced growing",
    "floor coalesced",
    weight=COALESCED // 2,
)
COMPARISONS = (
    SET,
    GROWING,
    Comparison("increment", "increment", "floor set"),
    Comparison("compare and set", "compare and set", "floor set"),
    Comparison("append", "append", "floor set"),
    Comparison(f"batch of {BATCH} sets", "batch", "floor batch", weight=BATCH // 5),
    COALESCED_SETS,
    COALESCED_GROWING,
    Comparison("get", "get", "floor get"),
)

SHARED = (
    replace(COALESCED_SETS, name=f"{COALESCED_SETS.name}, one namespace", shared=True),
    replace(COALESCED_GROWING, name=f"{COALESCED_GROWING.name}, one namespace", shared=True),
    Comparison("set, one namespace", "set", "floor set", shared=True),
    Comparison("set, every one grows or shrinks, one namespace", "set growing", "floor set", shared=True),
)


@dataclass(frozen=True)
class Setting:
    """Comparisons, and the clients, the configuration and the disk that they run with.

    With ``threads``, the clients are threads of one process. ``flush_milliseconds`` imitates a slow disk: each
    commit waits so long before it flushes, together with all other waiting commits (``commit_delay``).
    """

    clients: int
    comparisons: tuple[Comparison, ...]
    label: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    flush_milliseconds: int = 0
    threads: bool = False


_GLOBAL: Mapping[str, Any] = {"global_quota_bytes": 2**30}
SETTINGS = (
    Setting(1, COMPARISONS),
    Setting(8, COMPARISONS + SHARED),
    Setting(8, (SET, GROWING, COALESCED_SETS, COALESCED_GROWING), ", global quota", _GLOBAL),
    Setting(8, (SET, GROWING, *SHARED), threads=True),
    Setting(8, (SET, GROWING), ", global quota", _GLOBAL, threads=True),
    Setting(8, SHARED, ", 2 ms flush", flush_milliseconds=2),
    Setting(8, (SET, GROWING), ", global quota, 2 ms flush", _GLOBAL, flush_milliseconds=2),
)


def run(postgres: PostgresServer, *, rounds: int, quick: bool) -> Iterator[Row]:
    """Measure each operation in each setting, and yield a row for each."""
    turns = 200 if quick else 800
    for setting in SETTINGS:
        _slow_down(postgres, setting.flush_milliseconds)
        config = {"url": postgres.url(postgres.create_database()), **setting.config}
        own_turns = turns // 3 if setting.flush_milliseconds else turns
        with (running_threads if setting.threads else running_clients)(config, setting.clients) as pool:
            samples = [_measure(pool, setting, own_turns) for _ in range(rounds)]
        for comparison in setting.comparisons:
            yield _row(comparison, setting, [sample[comparison] for sample in samples])
    _slow_down(postgres, 0)


def _slow_down(postgres: PostgresServer, flush_milliseconds: int) -> None:
    postgres.execute(f"ALTER SYSTEM SET commit_delay = {1000 * flush_milliseconds}")
    postgres.execute(f"ALTER SYSTEM SET commit_siblings = {0 if flush_milliseconds else 5}")
    postgres.execute("SELECT pg_reload_conf()")


def _measure(pool: Executor, setting: Setting, turns: int) -> dict[Comparison, tuple[float, float]]:
    """Measure the rate of each operation and of its floor, over all clients."""
    sample, clients = {}, setting.clients
    for comparison in setting.comparisons:
        rates = []
        own_turns = turns // comparison.weight
        for name in (comparison.operation, comparison.floor):
            futures = [pool.submit(run_turns, name, own_turns, shared=comparison.shared) for _ in range(clients)]
            spans = [future.result() for future in futures]
            seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
            rates.append(clients * own_turns / seconds)
        sample[comparison] = (rates[0], rates[1])
    return sample


def _row(comparison: Comparison, setting: Setting, rates: list[tuple[float, float]]) -> Row:
    kind = "thread" if setting.threads else "client"
    clients = f"{setting.clients} {kind}{'s' if setting.clients > 1 else ''}"
    return {
        "name": f"store {comparison.name}, {clients}{setting.label}",
        "unit": "ops/s",
        "median": median(rate for rate, _ in rates),
        "floor": _FLOORS[comparison.floor],
        "floor_median": median(floor for _, floor in rates),
        "ratio": median(rate / floor for rate, floor in rates),
    }
