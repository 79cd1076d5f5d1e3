"""A worker knows what it has done, in each pool, whatever becomes of its child processes."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from kvworker import KeyValueStore, Settings
from kvworker.__version__ import __version__
from kvworker.errors import KVStoreError
from kvworker.messaging.wire import PRUNE_TASK, RECOMPUTE_TASK, SWEEP_TASK
from tests.support.database import locked_entry, waits_for_lock
from tests.support.processes import WorkerNode, wait_until
from tests.support.worker_status import outcomes, worker_status

RECYCLING = ["--pool=prefork", "--concurrency=2", "--max-tasks-per-child=20"]
CALLS = 90


@pytest.fixture
def config_overrides() -> dict[str, Any]:
    return {
        "queue": {"visibility_timeout_seconds": 5, "retry_seconds": 3},
        "facade": {"timeout_seconds": 60},
        "maintenance": {"sweep_budget_seconds": 2, "recompute_budget_seconds": 2, "prune_budget_seconds": 2},
    }


def count(histograms: Iterable[dict[str, Any]]) -> int:
    return sum(sum(histogram["counts"]) for histogram in histograms)


@pytest.mark.parametrize("worker_arguments", [RECYCLING, ["--pool=threads", "--concurrency=2"]], ids=str)
def test_every_operation_is_counted_once(
    store: KeyValueStore, settings: Settings, worker_node: WorkerNode, worker_arguments: list[str]
) -> None:
    """Also where each child of the pool is replaced after 20 messages, or killed."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda i: store.increment("n", f"c{i % 3}"), range(CALLS)))
    wait_until(lambda: worker_status(settings)["active"] == 0, what="idle children")
    for child in worker_node.children():
        child.kill()
    for _ in range(2):
        store.set("n", "k", 1, idempotency_key="once")
    for refused in (
        lambda: store.set("n", "k", 2, idempotency_key="once"),
        lambda: store.set("n", "k", 3, if_absent=True),
        lambda: store.set("n", "large", "x" * 2_000_000),
        lambda: store.increment("n", "k", delta=2**63 - 1),
    ):
        with suppress(KVStoreError):
            refused()
    with store.pipeline(raise_on_error=False) as pipeline:
        pipeline.set("n", "small", 1)
        pipeline.set("n", "large", "x" * 2_000_000)
    store.get("n", "k")
    app = store.dispatcher().app
    for task in (SWEEP_TASK, RECOMPUTE_TASK, PRUNE_TASK):
        app.send_task(task).get(timeout=60)
    status = worker_status(settings)
    totals = status["totals"]
    assert outcomes(totals) == {
        "kv_increment applied": CALLS,
        "kv_increment refused counter_overflow": 1,
        "kv_set applied": 1,
        "kv_set replayed": 1,
        "kv_set refused idempotency_conflict": 1,
        "kv_set refused version_conflict": 1,
        "kv_set refused namespace_quota": 1,
        "kv_batch applied": 1,
        "kv_get read": 1,
    }
    assert totals["refused_steps"] == {"namespace_quota": 1}
    operations = sum(outcomes(totals).values())
    assert count(totals["execution_seconds"].values()) == operations
    assert count(totals["queue_seconds"].values()) == operations
    # Each side reads the clock of deadlines with an error of half a round trip.
    assert 0 < sum(histogram["sum"] for histogram in totals["queue_seconds"].values()) < 60 * operations
    assert totals["coalesced_calls"]["sum"] >= count([totals["coalesced_calls"]]) > 0
    assert totals["batch_steps"]["sum"] == 2
    assert {task: numbers["runs"] for task, numbers in totals["maintenance"].items()} == {
        "sweep": 1,
        "prune": 1,
        "recompute": 1,
    }
    # Increments of one key do not share a transaction.
    assert set(totals["events"]) <= {"coalesced_calls_left_out"}
    assert (status["version"], status["active"], status["problem"]) == (__version__, 0, "")
    pool_uses = list(status["connections"].values())
    if "threads" in worker_arguments[0]:
        (use,) = pool_uses
        assert (use["busy"], use["limit"]) == (0, 15)
        assert 1 <= use["idle"] <= 2
    else:
        assert pool_uses == []
    assert (status["pool"], status["concurrency"]) == (worker_arguments[0].removeprefix("--pool="), 2)


def test_a_killed_child_and_a_malformed_message_are_counted(
    store: KeyValueStore, settings: Settings, worker_node: WorkerNode, postgres_url: str
) -> None:
    store.set("n", "c", 10)
    with locked_entry(postgres_url, "c") as blocker:
        pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=60)
        wait_until(lambda: waits_for_lock(blocker), what="the operation reaching the database")
        assert worker_status(settings)["active"] == 1
        for child in worker_node.children():
            child.kill()
        blocker.rollback()
    assert pending.result().value == 11
    store.dispatcher().app.send_task("no.such.task", queue=settings.queue.queue_name)
    wait_until(lambda: "no such task" in worker_node.logs(), what="the refusal")
    events = worker_status(settings)["totals"]["events"]
    assert events == {"pool_processes_lost": 1, "redeliveries": 1, "malformed_messages_refused": 1}
