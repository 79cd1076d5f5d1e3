"""The numbers of the last hour, and their charts."""

from __future__ import annotations

import time
from typing import cast

from kvworker.ops.dashboard.charts import HEIGHT, WIDTH, charts_of
from kvworker.ops.dashboard.history import History, Sample
from kvworker.ops.fleet import Fleet
from kvworker.ops.overview.activity import Activity
from kvworker.ops.overview.collector import Overview, OverviewCollector, WorkersState
from kvworker.ops.overview.parts import Part
from kvworker.ops.overview.queues import BrokerState, QueueState
from tests.support.processes import wait_until

RECENT = Activity(
    5.0,
    {
        ("operations", "kv_set", "applied", ""): 8,
        ("operations", "kv_set", "refused", "limit"): 1,
        ("operations", "kv_set", "unknown", "timeout"): 1,
        ("events", "late_messages_dropped"): 30,
    },
)


def test_a_sample_has_what_the_overview_tells() -> None:
    queues = Part(BrokerState((QueueState("kv", 0), QueueState("kv.maintenance", 3, 4.0))))
    sample = Sample.of(Overview(7.0, queues, Part(WorkersState(Fleet(), RECENT))))
    assert (sample.at, sample.operations_per_second, sample.refused, sample.unknown) == (7.0, 2.0, 1, 1)
    assert sample.late_per_second == 6.0
    # The queue of operations is empty, so nothing in it is old.
    assert (sample.depth, sample.oldest_seconds) == (0, 0)
    assert Sample.of(Overview(7.0, Part(problem="away"))) == Sample(7.0)


def test_a_chart_is_interrupted_where_nothing_is_known() -> None:
    depths = [0, 10, None, 5]
    chart = charts_of([Sample(100.0 + at, depth=depth) for at, depth in enumerate(depths)])[3]
    assert chart.title == "Waiting messages"
    assert chart.summary == "now 5, at least 0 and at most 10 in 3 s"
    assert chart.lines == (f"0.0,{HEIGHT - 2:.1f} 100.0,2.0", f"{WIDTH}.0,40.0 {WIDTH}.0,40.0")
    assert [value for _, value in chart.rows] == ["5", "10", "0"]


def test_the_axes_of_a_chart_are_labelled_with_values_and_times() -> None:
    samples = [Sample(100.0 + 60 * at, median_seconds=seconds) for at, seconds in enumerate((0.012, None, 0.004, None))]
    medians, depths = charts_of(samples)[1], charts_of([Sample(100.0, depth=0)])[3]
    assert medians.values == ("12 ms", "0 s")
    assert medians.times == tuple(time.strftime("%H:%M:%S", time.localtime(at)) for at in (100, 280))
    assert depths.values == ("1", "0")
    assert charts_of(samples)[3].values is None


def test_a_chart_says_when_its_last_value_was_known() -> None:
    chart = charts_of([Sample(100.0 + at, depth=depth) for at, depth in enumerate([0, 10, None])])[3]
    assert chart.summary == f"last known at {chart.rows[0][0]}: 10, at least 0 and at most 10 in 2 s"


def test_a_chart_of_nothing_and_one_of_zeros() -> None:
    assert {chart.summary for chart in charts_of([])} == {"nothing is known yet"}
    zeros = charts_of([Sample(1.0, depth=0), Sample(2.0, depth=0)])[3]
    assert zeros.lines == (f"0.0,{HEIGHT - 2:.1f} {WIDTH}.0,{HEIGHT - 2:.1f}",)


class Failing:
    """Collects one overview, and fails from then on."""

    def __init__(self) -> None:
        self.count = 0

    def collect(self) -> Overview:
        """Collect, or fail."""
        self.count += 1
        if self.count > 1:
            raise RuntimeError("a fault")
        return Overview(1.0)


def test_a_fault_does_not_end_the_history() -> None:
    history = History(cast(OverviewCollector, Failing()), interval_seconds=0.01)
    history.start()
    try:
        wait_until(lambda: len(history.samples()) > 3, timeout_seconds=60, what="the next samples")
        assert history.latest().taken_at > 1.0
    finally:
        history.stop()
