"""Workers and brokers that die in the middle of operations: nothing is lost, and nothing is applied twice."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest_celery import CeleryTestSetup

from kvworker import InlineKeyValueStore, KeyValueStore, NamespaceQuotaExceededError, RedeliveryLimitError, Settings
from tests.support.database import kill_in_the_middle_of_an_increment, locked_entry, waits_for_lock
from tests.support.processes import ProcessNode, ValkeyNode, WorkerNode, wait_until

VISIBILITY_TIMEOUT_SECONDS = 5


@pytest.fixture
def config_overrides() -> dict[str, Any]:
    return {
        "queue": {
            "visibility_timeout_seconds": VISIBILITY_TIMEOUT_SECONDS,
            "max_redeliveries": 2,
            "retry_seconds": 3,
            "soft_shutdown_seconds": 3,
        },
        "maintenance": {
            "sweep_budget_seconds": 2,
            "recompute_budget_seconds": 2,
            "prune_budget_seconds": 2,
            "sweep_interval_seconds": 3,
        },
    }


def test_a_worker_killed_in_the_middle_of_an_operation(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str, other_worker: WorkerNode
) -> None:
    kill_in_the_middle_of_an_increment(store, worker_node, postgres_url, other_worker)


def test_a_pool_child_killed_in_the_middle_of_an_operation(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str
) -> None:
    store.set("n", "c", 10)
    with locked_entry(postgres_url, "c") as blocker:
        pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=60)
        wait_until(lambda: waits_for_lock(blocker), what="the operation reaching the database")
        for child in worker_node.children():
            child.kill()
        blocker.rollback()
    assert pending.result().value == 11
    assert store.get("n", "c").value == 11
    assert worker_node.status == "running"


def test_a_message_that_kills_its_worker_is_given_up(
    store: KeyValueStore, tmp_path: Path, kv_environ: Mapping[str, str], valkey_node: ValkeyNode
) -> None:
    command = [sys.executable, "-m", "celery", "-A", "tests.support.poison_app", "worker", "-c", "1", "-l", "INFO"]
    worker = ProcessNode("poisoned", command, directory=tmp_path, environ=kv_environ)
    worker.start()
    try:
        with pytest.raises(RedeliveryLimitError):
            store.get("n", "poison", timeout=60)
        assert store.get("n", "harmless", timeout=120).found is False
        assert worker.logs().count("poison taken") == 3
        assert "given up after 2 redeliveries" in worker.logs()
        with valkey_node.client() as client:
            wait_until(lambda: client.hlen("kvworker.unacked") == 0, what="the poison acknowledged")
            assert client.llen("kv") == 0
    finally:
        worker.teardown()


def test_a_reported_refusal_stays_refused_when_its_message_is_delivered_again(
    store: KeyValueStore, settings: Settings, request: pytest.FixtureRequest, valkey_node: ValkeyNode
) -> None:
    pending = store.submit("kv_set", {"namespace": "n", "key": "late", "value": "x" * 50}, timeout=60)
    with valkey_node.client() as client:
        wait_until(lambda: client.llen("kv"), what="the message")
        item = client.lindex("kv", 0)
        # The message stays in the queue: a caller sends it again if it disappears before a worker has started.
        with InlineKeyValueStore(settings) as direct:
            direct.set_quota("n", 100)
            direct.set("n", "room", "x" * 90)
        worker: WorkerNode = request.getfixturevalue("worker_node")
        with pytest.raises(NamespaceQuotaExceededError):
            pending.result()
        store.delete("n", "room")
        client.lpush("kv", item)
        wait_until(lambda: worker.logs().count("NamespaceQuotaExceededError") == 2, what="the second refusal")
    assert not store.get("n", "late").found


@pytest.mark.parametrize("worker_arguments", [["--concurrency=2"], ["--pool=threads", "--concurrency=2"]], ids=str)
def test_broker_restarts_stop_no_worker_and_lose_nothing(
    celery_setup: CeleryTestSetup, store: KeyValueStore, worker_node: WorkerNode
) -> None:
    acknowledged = 0
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            calls = [
                threads.submit(store.increment, "n", "c", idempotency_key=f"{acknowledged}-{i}", timeout=40)
                for i in range(100)
            ]
            celery_setup.broker.restart(force=True)
            acknowledged += len([call.result() for call in calls])
            assert worker_node.status == "running", worker_node.logs()
    assert store.get("n", "c", timeout=20).value == acknowledged


@pytest.mark.parametrize("worker_arguments", [["--concurrency=2"], ["--pool=threads", "--concurrency=2"]], ids=str)
def test_a_broker_that_refuses_for_a_while_stops_no_worker(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    store.set("n", "k", 1)
    with valkey_node.client() as client:
        client.set("kv", "no list")
        wait_until(lambda: "refuses to hand out messages" in worker_node.logs(), what="the refusal")
        client.delete("kv")
    assert store.get("n", "k", timeout=20).value == 1
    assert worker_node.status == "running"


def test_broker_killed_while_idle(store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode) -> None:
    for number in range(3):
        store.set("n", "k", number, timeout=20)
        lost_before = _losses(worker_node)
        valkey_node.kill()
        while _losses(worker_node) == lost_before:
            assert worker_node.status == "running", worker_node.logs()
        valkey_node.start()
        assert store.get("n", "k", timeout=20).value == number
        assert worker_node.status == "running"


def _losses(worker: WorkerNode) -> int:
    return worker.logs().count("Connection to broker lost")


def test_a_result_arrives_although_it_could_not_be_stored_at_first(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str, valkey_node: ValkeyNode
) -> None:
    store.set("n", "c", 1)
    with locked_entry(postgres_url, "c") as blocker:
        pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=60)
        wait_until(lambda: waits_for_lock(blocker), what="the operation reaching the database")
        valkey_node.kill()
        blocker.rollback()
        wait_until(lambda: _committed(blocker), what="the commit")
    valkey_node.start()
    assert pending.result().value == 2
    assert store.get("n", "c", timeout=20).value == 2


def _committed(connection: psycopg.Connection) -> bool:
    value = connection.execute("SELECT value FROM kv_entries WHERE key = 'c'").fetchone()
    connection.rollback()
    return value == ("2",)


def test_a_warm_shutdown_finishes_running_operations(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str
) -> None:
    store.set("n", "c", 1)
    with locked_entry(postgres_url, "c") as blocker:
        pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=30)
        wait_until(lambda: waits_for_lock(blocker), what="the operation reaching the database")
        worker_node.kill("SIGTERM")
        wait_until(lambda: "Warm shutdown" in worker_node.logs(), what="the warm shutdown")
        blocker.rollback()
    assert pending.result().value == 2
    wait_until(lambda: worker_node.status == "exited", what="the worker's end")
    assert worker_node.exit_code == 0


def test_a_soft_shutdown_returns_unfinished_operations_to_the_queue(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str, other_worker: WorkerNode
) -> None:
    store.set("n", "c", 1)
    with locked_entry(postgres_url, "c") as blocker:
        pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=60)
        wait_until(lambda: waits_for_lock(blocker), what="the operation reaching the database")
        worker_node.kill("SIGQUIT")
        wait_until(lambda: worker_node.status == "exited", timeout_seconds=30, what="the worker's end")
        assert "Soft Shutdown" in worker_node.logs()
        blocker.rollback()
    other_worker.start()
    assert pending.result().value == 2
    assert store.get("n", "c").value == 2
