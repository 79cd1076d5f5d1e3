"""Runs one scenario of durable steps, from the start of its callers to the verdict."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final, TypeAlias

from tests.chaos.cluster import Cluster
from tests.chaos.effects.caller import StepCaller, open_stores
from tests.chaos.effects.faults import EffectsContext
from tests.chaos.effects.forms import Forms
from tests.chaos.effects.history import Call, Histories, Journal, Outcome, Recorded
from tests.chaos.effects.load import EffectsLoad
from tests.chaos.effects.plan import Plan
from tests.chaos.effects.recorder import RecorderClient, read_effects
from tests.chaos.effects.verdict import violations
from tests.chaos.injection import inject
from tests.chaos.needs import Needs
from tests.chaos.report import Report

#: A check that only some scenarios need. It describes violations in words.
Expectation: TypeAlias = Callable[[Histories], Iterator[str]]

_SETTLE_SECONDS: Final = 60.0
_HOUR_SECONDS: Final = 3600


@dataclass(frozen=True)
class EffectsScenario:
    """A fault that is injected again and again while callers run durable steps.

    Each caller is a process, whose clock is off by a number of ``clocks_off_seconds``.
    """

    name: str
    description: str
    fault: Callable[[EffectsContext], None]
    needs: Needs = field(default_factory=Needs)
    expects: tuple[Expectation, ...] = ()
    #: The faults go on, for a bounded time, until these find nothing wrong.
    until: tuple[Expectation, ...] = ()
    pause_seconds: tuple[float, float] = (0.2, 0.8)
    lease_seconds: float = 2.0
    #: Longer than the lease: such functions need a heartbeat, or finish late.
    slow_seconds: float = 3.0
    clocks_off_seconds: tuple[int, ...] = (0, _HOUR_SECONDS, -_HOUR_SECONDS)
    seconds: float = 20.0
    is_brief: bool = False


def run_effects(scenario: EffectsScenario, cluster: Cluster, *, seed: int, seconds: float) -> Report:
    """Run the callers, inject the fault for ``seconds``, call each key once more, and check the results."""
    began = time.monotonic()
    plan = Plan(f"{scenario.name}-{seed}", scenario.lease_seconds, began, scenario.slow_seconds)
    load = EffectsLoad(cluster, plan, str(seed), scenario.clocks_off_seconds)
    context = EffectsContext(cluster, Random(f"{seed}/{scenario.name}"), load)  # noqa: S311 - chooses faults
    cluster.mark_start()
    with load.running() as recorder:
        faults_ended, problems = inject(
            partial(scenario.fault, context),
            partial(context.pause, *scenario.pause_seconds),
            partial(_lacks, scenario, context),
            seconds,
        )
        problems += cluster.unexpected_ends()
        cluster.heal()
        problems += load.finish()
        _call_all(cluster, load, recorder)
        problems += cluster.wait_until_drained()
    histories = Histories.read(load.journals, read_effects(load.effects_file), _recorded(cluster, plan.namespace))
    problems += violations(histories)
    problems += [problem for expects in scenario.expects for problem in expects(histories)]
    took_seconds = round(time.monotonic() - began, 1)
    return Report(scenario.name, seed, took_seconds, **_figures(histories, faults_ended), violations=problems)


def _lacks(scenario: EffectsScenario, context: EffectsContext) -> bool:
    """Tell whether the scenario has not seen yet what it needs."""
    if not scenario.until:
        return False
    histories = Histories.read(context.load.journals, (), ())
    return any(True for expects in scenario.until for _ in expects(histories))


def _call_all(cluster: Cluster, load: EffectsLoad, recorder: RecorderClient) -> None:
    """Call each key until its outcome is known, or is known to be unknown."""
    calls = Histories.read(load.journals, (), ()).calls
    arguments = {call.key: call.arguments for call in calls if call.outcome is not Outcome.CONFLICT}
    arguments |= {effect.key: effect.arguments for effect in read_effects(load.effects_file)}
    journal = Journal(load.directory / "last.journal")
    with open_stores(cluster.settings) as stores:
        forms = Forms(stores, load.plan, recorder, journal, Random(0))  # noqa: S311 - chooses pauses
        caller = StepCaller("last", forms.all, load.plan, journal, Random(0))  # noqa: S311 - chooses forms
        end_at = time.monotonic() + _SETTLE_SECONDS
        for key, given in arguments.items():
            while not _is_known(caller.call(key, given)) and time.monotonic() < end_at:
                time.sleep(0.1)


def _is_known(call: Call) -> bool:
    return call.outcome not in {Outcome.IN_PROGRESS, Outcome.UNAVAILABLE, Outcome.LOST}


def _recorded(cluster: Cluster, namespace: str) -> Iterator[Recorded]:
    for (found, key), entry in cluster.database.snapshot(namespace).entries.items():
        if found == namespace:
            step = entry.value
            yield Recorded(key, step["state"], step["token"], Forms.receipt_of(step))


def _figures(histories: Histories, faults_ended: Sequence[float]) -> dict[str, Any]:
    known = sorted(call.ended - call.began for call in histories.calls if call.outcome.is_final) or [0.0]
    ended = sorted(call.ended for call in histories.calls if call.outcome.is_final)
    recovered = [ended[index] - end for end in faults_ended if (index := bisect_right(ended, end)) < len(ended)]
    effects = Counter(effect.key for effect in histories.effects)
    settled = Counter("it happened" if each.happened else "it did not" for each in histories.settlements)
    return {
        "operations": len({call.key for call in histories.calls}),
        "calls": len(histories.calls),
        "faults": len(faults_ended),
        "outcomes": dict(sorted(Counter(str(call.outcome) for call in histories.calls).items())),
        "p50_seconds": round(known[len(known) // 2], 4),
        "p99_seconds": round(known[int(len(known) * 0.99)], 4),
        "longest_seconds": round(known[-1], 3),
        "recovery_seconds": round(max(recovered, default=0.0), 2),
        "figures": {
            "effects": len(histories.effects),
            "keys with two effects, settled between them": sum(count > 1 for count in effects.values()),
            "unknown steps settled by looking": dict(settled),
            "unknown steps reported and left": sum(step.state == "reserved" for step in histories.recorded),
        },
    }
