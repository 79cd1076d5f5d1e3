"""Runs one scenario, from the start of its load to the verdict."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import Any

from tests.chaos.cluster import Cluster
from tests.chaos.database import Observer
from tests.chaos.effects.run import EffectsScenario, run_effects
from tests.chaos.history import Call, History, operations_of, seconds_at
from tests.chaos.injection import inject
from tests.chaos.load import Load
from tests.chaos.report import Report
from tests.chaos.scenario import FaultContext, Scenario
from tests.chaos.verdict import violations


def run(scenario: Scenario | EffectsScenario, cluster: Cluster, *, seed: int, seconds: float) -> Report:
    """Run the load, inject the fault for ``seconds``, wait until everything settles, and check the results."""
    if isinstance(scenario, EffectsScenario):
        return run_effects(scenario, cluster, seed=seed, seconds=seconds)
    return _run(scenario, cluster, seed=seed, seconds=seconds)


def _run(scenario: Scenario, cluster: Cluster, *, seed: int, seconds: float) -> Report:
    began = time.monotonic()
    prefix, name = f"{scenario.name}-{seed}", f"{seed}/{scenario.name}"
    history = History(cluster.directory / f"{scenario.name}.history")
    cluster.mark_start()
    with ExitStack() as resources:
        resources.callback(history.close)
        stores = [resources.enter_context(cluster.store()) for _ in range(scenario.stores)]
        load = Load(stores, history, prefix=prefix, seed=name, callers=scenario.callers, groups=scenario.groups)
        context = FaultContext(cluster, Random(name), stores, load)  # noqa: S311 - chooses faults
        observer = Observer(cluster.database, prefix, scenario.observe_seconds)
        load.start(scenario.pace)
        observer.start()
        faults_ended, problems = inject(
            partial(scenario.fault, context),
            partial(context.pause, *scenario.pause_seconds),
            partial(_lacks, scenario, context),
            seconds,
        )
        problems += _settle(context)
        problems += observer.stop()
        calls = history.calls()
        problems += _check(scenario, context, calls, prefix)
    figures = _figures(calls, faults_ended) | {"observations": observer.observations, "figures": context.figures}
    took_seconds = round(time.monotonic() - began, 1)
    return Report(scenario.name, seed, took_seconds, **figures, violations=problems)


def _lacks(scenario: Scenario, context: FaultContext) -> bool:
    """Tell whether the scenario has not seen yet what it needs."""
    if not scenario.until:
        return False
    calls = context.load.history.calls()
    return any(True for expects in scenario.until for _ in expects(context, calls))


def _settle(context: FaultContext) -> list[str]:
    ended = context.cluster.unexpected_ends()
    context.cluster.heal()
    return [*ended, *context.load.finish(), *context.cluster.wait_until_drained()]


def _check(scenario: Scenario, context: FaultContext, calls: Sequence[Call], prefix: str) -> list[str]:
    problems = violations(calls, context.cluster.database.snapshot(prefix))
    if "ledger was wrong" in context.cluster.logs():
        problems.append("a recompute found a wrong ledger; see the workers' logs")
    return problems + [problem for expects in scenario.expects for problem in expects(context, calls)]


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
