"""A worker's counts, over its processes and threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable

from kvworker.errors import NamespaceQuotaExceededError
from kvworker.messaging.histogram import SECONDS_BOUNDS
from kvworker.messaging.observer import Event, MaintenanceReport, MessageReport, OperationEnd
from kvworker.messaging.outcomes import APPLIED, READ, Outcome, outcome_of_error
from kvworker.tools import TOOLS
from kvworker.worker.totals import Totals

REFUSED = outcome_of_error(NamespaceQuotaExceededError("n", 1, 1, 1), writes=True)


def ended(tool: str = "kv_set", outcome: Outcome = APPLIED, seconds: float = 0.003) -> MessageReport:
    return MessageReport([OperationEnd(TOOLS[tool], "id", outcome)], seconds, queue_seconds=seconds / 2)


def tell(totals: Totals, reports: Iterable[MessageReport]) -> None:
    for report in reports:
        totals.message_ended(report)


def in_a_child(totals: Totals, slot: int) -> None:
    """Count an operation in a forked process, which is then gone without a word."""
    child = os.fork()
    if not child:
        totals.use_slot(slot)
        totals.message_ended(ended())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_new_worker_has_done_nothing() -> None:
    report = Totals().report()
    assert not any(map(bool, (report["operations"], report["execution_seconds"], report["queue_seconds"])))
    assert not any(map(bool, (report["events"], report["refused_steps"], report["maintenance"])))
    assert sum(report["batch_steps"]["counts"]) == sum(report["coalesced_calls"]["counts"]) == 0


def test_operations_are_counted_by_tool_outcome_and_time() -> None:
    totals = Totals()
    tell(totals, [ended(), ended(outcome=REFUSED, seconds=100), ended("kv_get", READ, 0.0)])
    report = totals.report()
    assert report["operations"] == [
        {"tool": "kv_get", "outcome": "read", "reason": "", "count": 1},
        {"tool": "kv_set", "outcome": "applied", "reason": "", "count": 1},
        {"tool": "kv_set", "outcome": "refused", "reason": "namespace_quota", "count": 1},
    ]
    times = report["execution_seconds"]["kv_set"]
    assert times["sum"] == 100.003
    assert [i for i, count in enumerate(times["counts"]) if count] == [
        SECONDS_BOUNDS.index(0.00315),
        len(SECONDS_BOUNDS),
    ]
    assert report["queue_seconds"]["kv_set"]["sum"] == 50.0015


def test_what_a_child_has_counted_outlives_it_and_its_successor_continues() -> None:
    totals = Totals()
    totals.message_ended(ended())
    for slot in (1, 2, 1):
        in_a_child(totals, slot)
    assert totals.report()["operations"][0]["count"] == 4


def test_a_fork_while_another_thread_counts_leaves_the_child_able_to_count() -> None:
    totals = Totals()
    with totals._lock:
        in_a_child(totals, 1)
    assert totals.report()["operations"][0]["count"] == 1


def test_threads_lose_no_count() -> None:
    totals = Totals()

    def count() -> None:
        for _ in range(2000):
            totals.happened(Event.RETRIED)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals.report()["events"] == {"retries": 8000}


def test_runs_of_periodic_tasks_are_summed() -> None:
    totals = Totals()
    totals.maintenance_ended(MaintenanceReport("sweep", 2.0, rows=10, complete=True))
    totals.maintenance_ended(MaintenanceReport("sweep", 1.0, rows=5))
    totals.maintenance_ended(MaintenanceReport("sweep", 0.5, failed=True))
    assert totals.report()["maintenance"] == {
        "sweep": {"runs": 3, "failed": 1, "incomplete": 1, "rows": 15, "seconds": 3.5}
    }
