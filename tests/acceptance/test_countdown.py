"""Messages with a countdown or an eta beyond the visibility timeout: a waiting worker does not count as lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery.result import AsyncResult
from redis import Redis

from kvworker import KeyValueStore
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.wire import REDELIVERY_COUNTS
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

VISIBILITY_TIMEOUT_SECONDS = 5
COUNTDOWN_SECONDS = 17
COUNT = {"namespace": "n", "key": "c"}


@pytest.fixture
def config_overrides() -> dict[str, Any]:
    return {
        "queue": {
            "visibility_timeout_seconds": VISIBILITY_TIMEOUT_SECONDS,
            "retry_seconds": 3,
            "max_redeliveries": 1,
            "soft_shutdown_seconds": 1,
        },
        "maintenance": dict.fromkeys(("sweep_budget_seconds", "recompute_budget_seconds", "prune_budget_seconds"), 2),
    }


@pytest.fixture
def broker(valkey_node: ValkeyNode) -> Iterator[Redis]:
    with valkey_node.client() as client:
        yield client


def redeliveries(broker: Redis, result: AsyncResult) -> int:
    """How often a task's message was counted as one of a lost worker."""
    return int(broker.get(REDELIVERY_COUNTS + result.id) or 0)


def test_a_message_that_waits_is_not_delivered_again(
    store: KeyValueStore, worker_node: WorkerNode, other_worker: WorkerNode, broker: Redis
) -> None:
    other_worker.start()
    assert other_worker.ready()
    waiting = [store.signature("kv_increment", COUNT).apply_async(countdown=COUNTDOWN_SECONDS) for _ in range(3)]
    eta = datetime.now(UTC) + timedelta(seconds=COUNTDOWN_SECONDS)
    waiting.append(store.signature("kv_increment", COUNT).apply_async(eta=eta))
    assert sorted(each.get(timeout=90)["value"] for each in waiting) == [1, 2, 3, 4]
    assert [redeliveries(broker, each) for each in waiting] == [0] * 4, "a wait was counted as a lost worker"
    received = [node.logs().count("kvworker.kv_increment[") for node in (worker_node, other_worker)]
    assert sum(received) == 4, "each message is received once"


def test_a_waiting_message_of_a_lost_worker_goes_to_another(
    store: KeyValueStore, worker_node: WorkerNode, other_worker: WorkerNode, broker: Redis
) -> None:
    waiting = store.signature("kv_increment", COUNT).apply_async(countdown=COUNTDOWN_SECONDS)
    wait_until(lambda: broker.hlen("kvworker.unacked") == 1, what="the worker holds the message")
    worker_node.kill()
    other_worker.start()
    result = waiting.get(timeout=90)
    assert (result["value"], result["replayed"]) == (1, False)
    assert redeliveries(broker, waiting) == 1


def test_an_applied_operation_is_answered_although_its_message_was_delivered_too_often(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode, broker: Redis
) -> None:
    assert store.increment("n", "c", idempotency_key="applied").value == 1
    broker.set("kvworker.redelivered.given-up", 100)
    app = make_celery(store.settings)
    keyed = {**COUNT, "idempotency_key": "applied"}
    sent = app.send_task("kvworker.kv_increment", kwargs=keyed, task_id="given-up", queue="parked")
    (item,) = broker.lrange("parked", 0, -1)
    message = json.loads(item)
    message["properties"]["delivery_info"]["redelivered"] = True
    broker.lpush("kv", json.dumps(message))
    result = sent.get(timeout=60)
    assert (result["value"], result["replayed"]) == (1, True)
