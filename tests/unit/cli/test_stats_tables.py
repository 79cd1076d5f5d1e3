"""The tables of ``stats`` and ``usage``, without a server."""

from __future__ import annotations

from io import StringIO

from rich.console import Console, RenderableType

from kvworker.cli.output import usage_table
from kvworker.cli.stats_tables import overview_tables
from kvworker.model import DatabaseConnections, LedgerUsage, TableLock, UsagePage
from kvworker.ops.fleet import Fleet, WorkerAnswer
from kvworker.ops.overview.activity import Activity
from kvworker.ops.overview.collector import Overview, StoreParts, WorkersState
from kvworker.ops.overview.parts import Part


def printed(shown: RenderableType) -> str:
    out = StringIO()
    Console(file=out, width=200).print(shown)
    return out.getvalue()


def shown(overview: Overview) -> str:
    return printed(overview_tables(overview))


def test_events_that_are_no_operations_have_a_line_of_their_own() -> None:
    totals = {"events": {"late_messages_dropped": 12_345, "retries": 3}}
    fleet = Fleet((WorkerAnswer("w", "", state={"totals": totals}),))
    recent = Activity(2.0, {("events", "late_messages_dropped"): 678})
    lines = shown(Overview(1.0, workers=Part(WorkersState(fleet, recent)))).splitlines()
    assert lines[-2:] == ["events, last 2 s: dropped late 678", "events, since start: dropped late 12,345, retries 3"]
    assert "events" not in shown(Overview(1.0, workers=Part(WorkersState(Fleet(), Activity(2.0, {})))))


def test_a_full_namespace_tells_which_limit_is_full() -> None:
    ledger = LedgerUsage("n", 7, 1, 2**20, 1000, 96, 100)
    overview = Overview(1.0, stores={"postgres": StoreParts(fullest=Part(UsagePage((ledger,), 1)))})
    assert "96.0% (records)" in shown(overview)
    assert "96.0% (records)" in printed(usage_table([ledger]))
    assert overview.to_dict()["stores"]["postgres"]["fullest"][0]["fullest_limit"] == "records"


def test_locks_come_first_since_they_are_the_cause_of_other_problems() -> None:
    lock = TableLock("kv_ledgers", "ShareLock", 5, "u", "p", None)
    store = StoreParts(Part(problem="no"), connections=Part(DatabaseConnections(9, 1, 2, 4, 3, 100, (lock,))))
    lines = shown(Overview(1.0, stores={"postgres": store})).splitlines()
    named = "postgres: kv_ledgers is locked: process 5 (user u, program p) holds ShareLock"
    assert lines[1:3] == [named, "postgres: total: no"]
