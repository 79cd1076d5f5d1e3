"""One scenario from its load's beginning to the verdict."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
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
    """What came of a scenario.

    ``recovery_seconds`` is the longest that it took after a fault until some call succeeded, ``looks`` how often the
    observer saw the database.
    """

    scenario: str
    seed: int
    seconds: float
    operations: int = 0
    calls: int = 0
    faults: int = 0
    looks: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    p50_seconds: float = 0.0
    p99_seconds: float = 0.0
    longest_seconds: float = 0.0
    recovery_seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

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
        load = Load(stores, history, prefix=prefix, seed=name, callers=scenario.callers, worlds=scenario.worlds)
        scene = Scene(stand, stores, load, Random(name))  # noqa: S311 - it draws faults
        observer = Observer(stand.database, prefix, scenario.look_seconds)
        load.start(scenario.pace)
        observer.start()
        faults_ended, problems = _inject(scenario, scene, seconds)
        problems += _settle(scene)
        problems += observer.stop()
        calls = history.calls()
        problems += _judge(scenario, scene, calls, prefix)
    figures = _figures(calls, faults_ended) | {"looks": observer.looks, "figures": scene.figures}
    took = round(time.monotonic() - began, 1)
    return Report(scenario.name, seed, took, **figures, violations=problems)


def _inject(scenario: Scenario, scene: Scene, seconds: float) -> tuple[list[float], list[str]]:
    """Inject the fault again and again: when each was over, and why one did not come about."""
    end_at = time.monotonic() + seconds
    ended: list[float] = []
    scene.pause(*scenario.pause_seconds)
    while not ended or time.monotonic() < end_at:
        try:
            scenario.fault(scene)
        except Exception as error:  # noqa: BLE001 - the servers must be healed and the history judged all the same
            return ended, [f"the fault failed: {type(error).__name__}: {error}"]
        ended.append(time.monotonic())
        scene.pause(*scenario.pause_seconds)
    return ended, []


def _settle(scene: Scene) -> list[str]:
    ended = scene.stand.ended_workers()
    scene.stand.heal()
    return [*ended, *scene.load.finish(), *scene.stand.drained()]


def _judge(scenario: Scenario, scene: Scene, calls: Sequence[Call], prefix: str) -> list[str]:
    problems = violations(calls, scene.stand.database.snapshot(prefix))
    if "ledger was wrong" in scene.stand.logs():
        problems.append("a recompute found a ledger that was wrong; see the workers' logs")
    return problems + [problem for expects in scenario.expects for problem in expects(scene, calls)]


def _figures(calls: Sequence[Call], faults_ended: Sequence[float]) -> dict[str, Any]:
    return {
        "operations": len(operations_of(calls)),
        "calls": len(calls),
        "faults": len(faults_ended),
        "outcomes": dict(sorted(Counter(str(call.outcome) for call in calls).items())),
        "p50_seconds": round(seconds_at(calls, 0.5), 4),
        "p99_seconds": round(seconds_at(calls, 0.99), 4),
        "longest_seconds": round(seconds_at(calls, 1.0), 3),
        "recovery_seconds": round(_slowest_recovery(calls, faults_ended), 2),
    }


def _slowest_recovery(calls: Sequence[Call], faults_ended: Sequence[float]) -> float:
    successes = sorted(call.ended for call in calls if not call.error)
    found = [successes[index] - end for end in faults_ended if (index := bisect_right(successes, end)) < len(successes)]
    return max(found, default=0.0)
