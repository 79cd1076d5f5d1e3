from __future__ import annotations

from typing import Any

import pytest

from kvworker.messaging.observer import Event
from kvworker.messaging.outcomes import APPLIED, EXPIRED
from kvworker.ops.fleet import Fleet, WorkerAnswer
from kvworker.ops.overview.activity import ActivityMeter, activity_since_start
from kvworker.tools import TOOLS
from kvworker.worker.totals import Totals
from tests.unit.worker.test_totals import REFUSED, ended, tell


def answer(totals: Any, name: str = "w", started_at: float = 1.0, uptime_seconds: float = 100) -> WorkerAnswer:
    state = {"totals": totals, "started_at": started_at}
    return WorkerAnswer(name, "", uptime_seconds=uptime_seconds, state=state)


def test_the_totals_of_all_workers_are_summed_up() -> None:
    totals = Totals()
    tell(totals, [ended(seconds=0.003)] * 98 + [ended("kv_get", seconds=4.0), ended(outcome=REFUSED)])
    totals.happened(Event.DRIFT, 2)
    fleet = Fleet((answer(totals.report()), answer(totals.report(), "v", uptime_seconds=50)))
    activity = activity_since_start(fleet)
    assert (activity.operations, activity.per_second) == (200, 2.0)
    assert activity.ended("applied") == 198
    assert activity.reasons() == {("refused", "namespace_quota"): 2}
    assert activity.event(Event.DRIFT) == 4
    median, slowest = (activity.quantile("execution_seconds", share) for share in (0.5, 1.0))
    assert median == pytest.approx(0.003, abs=0.001)
    assert slowest is not None
    assert 2.5 < slowest <= 5
    shown = activity.to_dict()
    assert shown["unsuccessful"] == [{"outcome": "refused", "reason": "namespace_quota", "count": 2}]
    assert shown["events"]["ledger_drifts"] == 4


def test_what_was_dropped_late_is_counted_though_much_of_it_is_no_operation() -> None:
    totals = Totals()
    tell(totals, [ended(), ended(outcome=EXPIRED)])
    totals.happened(Event.LATE_DROPPED, 9)
    totals.happened(Event.RETRIED, 3)
    activity = activity_since_start(Fleet((answer(totals.report(), uptime_seconds=5),)))
    assert (activity.operations, activity.late, activity.late_per_second) == (2, 10, 2.0)
    assert activity.incidents() == {"dropped late": 10, "retries": 3}


def test_a_meter_counts_what_happened_between_two_answers() -> None:
    totals, meter = Totals(), ActivityMeter()
    tell(totals, [ended()] * 5)
    assert meter.measure(Fleet((answer(totals.report()),)), 10.0) is None
    tell(totals, [ended()] * 3)
    recent = meter.measure(Fleet((answer(totals.report()),)), 12.0)
    assert recent is not None
    assert (recent.operations, recent.per_second) == (3, 1.5)


def test_a_restarted_worker_counts_from_zero_and_one_that_was_silent_not_at_all() -> None:
    many, few, meter = Totals(), Totals(), ActivityMeter()
    tell(many, [ended()] * 100)
    tell(few, [ended()] * 2)
    meter.measure(Fleet((answer(many.report()),)), 10.0)
    restarted = answer(few.report(), started_at=11.0, uptime_seconds=1)
    silent_before = answer(many.report(), "old", uptime_seconds=1000)
    recent = meter.measure(Fleet((restarted, silent_before)), 12.0)
    assert recent is not None
    assert recent.operations == 2


@pytest.mark.parametrize(
    "totals",
    [
        None,
        [],
        {"operations": 3, "execution_seconds": [], "events": "x", "maintenance": {"sweep": None}},
        {"operations": [None, {}, {"tool": "kv_get", "outcome": "made up", "reason": "", "count": 1}]},
        {"operations": [{"tool": "kv_get", "outcome": APPLIED.name, "reason": "", "count": 10**400}]},
        {"execution_seconds": {key: {"counts": ["1", -1, None, True, float("nan")]} for key in TOOLS}},
        {"events": {"made up": 1}, "maintenance": {"made up": {"runs": 1}}},
    ],
)
def test_totals_may_hold_anything(totals: Any) -> None:
    assert activity_since_start(Fleet((answer(totals),))).counts == {}
