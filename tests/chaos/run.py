"""One scenario from its load's beginning to the verdict."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from tests.chaos.database import Observer
from tests.chaos.history import Call, History, operations_of, seconds_at
from tests.chaos.load import Load
from tests.chaos.scene import Scenario, Scene
from tests.chaos.stand import Stand
from tests.chaos.verdict import violations


@dataclass(frozen=True)
class Report:
    """What came of a scenario."""

    scenario: str
    seed: int
    seconds: float
    operations: int
    calls: int
    faults: int
    looks: int
    outcomes: dict[str, int]
    p50_seconds: float
    p99_seconds: float
    longest_seconds: float
    violations: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON knows it."""
        return asdict(self)


def run(scenario: Scenario, stand: Stand, *, seed: int, seconds: float) -> Report:
    """Run the load, inject the fault for so many seconds, let all settle, and judge."""
    began = time.monotonic()
    prefix, name = f"{scenario.name}-{seed}", f"{seed}/{scenario.name}"
    history = History(stand.directory / f"{scenario.name}.history")
    stand.begin()
    with ExitStack() as open_until_judged:
        open_until_judged.callback(history.close)
        stores = [open_until_judged.enter_context(stand.store()) for _ in range(scenario.stores)]
        load = Load(stores, history, prefix=prefix, seed=name, callers=scenario.callers)
        scene = Scene(stand, stores, load, Random(name))  # noqa: S311 - it draws faults
        observer = Observer(stand.database, prefix)
        load.start(scenario.pace)
        observer.start()
        faults, problems = _inject(scenario, scene, seconds)
        problems += _settle(scene)
        problems += observer.stop()
        if "ledger was wrong" in stand.logs():
            problems.append("a recompute found a ledger that was wrong; see the workers' logs")
        calls = history.calls()
        problems += violations(calls, stand.database.snapshot(prefix))
        problems += [problem for expects in scenario.expects for problem in expects(scene, calls)]
    took = time.monotonic() - began
    return _report(scenario, calls, problems, seed=seed, seconds=took, faults=faults, looks=observer.looks)


def _inject(scenario: Scenario, scene: Scene, seconds: float) -> tuple[int, list[str]]:
    """Inject the fault again and again: how often it came about, and why it did not."""
    end_at = time.monotonic() + seconds
    faults = 0
    scene.pause(*scenario.pause_seconds)
    while not faults or time.monotonic() < end_at:
        try:
            scenario.fault(scene)
        except Exception as error:  # noqa: BLE001 - the servers must be healed and the history judged all the same
            return faults, [f"the fault failed: {type(error).__name__}: {error}"]
        faults += 1
        scene.pause(*scenario.pause_seconds)
    return faults, []


def _settle(scene: Scene) -> list[str]:
    ended = scene.stand.ended_workers()
    scene.stand.heal()
    return [*ended, *scene.load.finish(), *scene.stand.drained()]


def _report(
    scenario: Scenario,
    calls: Sequence[Call],
    problems: list[str],
    *,
    seed: int,
    seconds: float,
    faults: int = 0,
    looks: int = 0,
) -> Report:
    return Report(
        scenario=scenario.name,
        seed=seed,
        seconds=round(seconds, 1),
        operations=len(operations_of(calls)),
        calls=len(calls),
        faults=faults,
        looks=looks,
        outcomes=dict(sorted(Counter(str(call.outcome) for call in calls).items())),
        p50_seconds=round(seconds_at(calls, 0.5), 4),
        p99_seconds=round(seconds_at(calls, 0.99), 4),
        longest_seconds=round(seconds_at(calls, 1.0), 3),
        violations=problems,
    )


def not_run(scenario: Scenario, seed: int, error: Exception) -> Report:
    """The report of a scenario whose stand did not even start, or broke down."""
    return _report(scenario, [], [f"{type(error).__name__}: {error}"], seed=seed, seconds=0.0)
