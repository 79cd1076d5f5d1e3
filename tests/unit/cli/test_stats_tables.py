"""The tables of ``stats``, without a server."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from kvworker.cli.stats_tables import overview_tables
from kvworker.ops.fleet import Fleet, WorkerAnswer
from kvworker.ops.overview.activity import Activity
from kvworker.ops.overview.collector import Overview, WorkersState
from kvworker.ops.overview.parts import Part


def shown(overview: Overview) -> str:
    printed = StringIO()
    Console(file=printed, width=200).print(overview_tables(overview))
    return printed.getvalue()


def test_events_that_are_no_operations_have_a_line_of_their_own() -> None:
    totals = {"events": {"late_messages_dropped": 12_345, "retries": 3}}
    fleet = Fleet((WorkerAnswer("w", "", state={"totals": totals}),))
    recent = Activity(2.0, {("events", "late_messages_dropped"): 678})
    lines = shown(Overview(1.0, workers=Part(WorkersState(fleet, recent)))).splitlines()
    assert lines[-2:] == ["events, last 2 s: dropped late 678", "events, since start: dropped late 12,345, retries 3"]
    assert "events" not in shown(Overview(1.0, workers=Part(WorkersState(Fleet(), Activity(2.0, {})))))
