"""Coalesced calls of many threads need fewer messages, and callers notice no other difference."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from kvworker import (
    AsyncKeyValueStore,
    IdempotencyConflictError,
    InvalidValueTypeError,
    KeyValueStore,
    NamespaceQuotaExceededError,
    OperationTimeoutError,
    QueueUnavailableError,
    Settings,
)
from kvworker.errors import KVStoreError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.wire import APPLY_MANY_TASK, encode_many, encode_request
from kvworker.tools import TOOLS
from tests.support.database import locked_entry
from tests.support.elapsed import finishes_within
from tests.support.processes import ProcessNode, ValkeyNode, WorkerNode, wait_until

CALLERS = 12
CALLS = 240


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=2"]


@pytest.fixture
def config_overrides(postgres_url: str) -> dict[str, Any]:
    adapters = {"postgres": {"url": postgres_url, "namespace_quota_bytes": 2000}}
    return {
        "tools": {"kv_store": {"default_adapter": "postgres", "adapters": adapters}},
        "queue": {"visibility_timeout_seconds": 5, "retry_seconds": 3},
        "maintenance": dict.fromkeys(("sweep_budget_seconds", "recompute_budget_seconds", "prune_budget_seconds"), 2),
    }


@pytest.fixture
def broker(valkey_node: ValkeyNode) -> Iterator[Redis]:
    with valkey_node.client() as client:
        yield client


def messages_of(broker: Redis) -> int:
    return int(broker.info("commandstats")["cmdstat_lpush"]["calls"])


def outcome_of(store: KeyValueStore, number: int) -> object:
    """Make one of several kinds of calls, and return its outcome in a comparable form."""
    own = f"key {number}"
    calls: list[Callable[[], object]] = [
        lambda: store.increment("n", "counter", timeout=30).value,
        lambda: store.set("sets", own, {"n": number}, timeout=30).value,
        lambda: store.increment("n", "text", timeout=30).value,
        lambda: store.set("large", own, "x" * 2500, timeout=30).value,
        lambda: store.get("missing", own, timeout=30).found,
        lambda: store.set("expiring", own, number, ttl_seconds=60, timeout=30).ttl_seconds,
    ]
    try:
        return calls[number % len(calls)]()
    except KVStoreError as error:
        return type(error)


def test_many_callers_need_few_messages(store: KeyValueStore, worker_node: WorkerNode, broker: Redis) -> None:
    assert worker_node.ready()
    store.get("n", "k")
    broker.config_resetstat()
    with ThreadPoolExecutor(CALLERS) as threads:
        counts = list(threads.map(lambda _: store.increment("n", "counter", timeout=30).value, range(CALLS)))
    assert sorted(counts) == list(range(1, CALLS + 1))
    assert messages_of(broker) < CALLS
    lines = "Task kvworker.kv_increment["
    wait_until(lambda: worker_node.logs().count(lines) == CALLS, what="a line of the log for each call")
    wait_until(lambda: not list(broker.scan_iter("celery-task-meta-*")), what="results forgotten")


def test_each_call_has_its_own_outcome(store: KeyValueStore, worker_node: WorkerNode) -> None:
    assert worker_node.ready()
    store.set("n", "text", "x")
    with ThreadPoolExecutor(CALLERS) as threads:
        outcomes = list(threads.map(lambda number: outcome_of(store, number), range(CALLS)))
    assert {*outcomes[0::6]} == set(range(1, CALLS // 6 + 1))
    assert outcomes[1::6] == [{"n": number} for number in range(1, CALLS, 6)]
    assert set(outcomes[2::6]) == {InvalidValueTypeError}
    assert set(outcomes[3::6]) == {NamespaceQuotaExceededError}
    assert set(outcomes[4::6]) == {False}
    assert set(outcomes[5::6]) == {60}


def test_an_operation_id_is_applied_once_by_all_callers(store: KeyValueStore, worker_node: WorkerNode) -> None:
    assert worker_node.ready()

    def count(number: int) -> object:
        key = f"operation {number % 20}"
        return number % 20, store.increment("n", f"counter {number % 20}", idempotency_key=key, timeout=30).value

    def clash(number: int) -> object:
        try:
            return store.increment("n", "other", idempotency_key=f"operation {number % 20}", timeout=30)
        except IdempotencyConflictError as error:
            return error.operation_id

    with ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(count, range(CALLS))) == {(number, 1) for number in range(20)}
        assert set(threads.map(clash, range(CALLS))) == {f"operation {number}" for number in range(20)}
    assert not store.get("n", "other").found


def test_a_worker_that_is_killed_loses_nothing(
    store: KeyValueStore, worker_node: WorkerNode, other_worker: WorkerNode
) -> None:
    other_worker.start()
    assert other_worker.ready()
    with ThreadPoolExecutor(CALLERS) as threads:
        counting = [threads.submit(store.increment, "n", "counter", timeout=60) for _ in range(CALLS)]
        wait_until(lambda: sum(count.done() for count in counting) > CALLS / 4, what="some counts")
        worker_node.kill()
        assert {count.result().value for count in counting} == set(range(1, CALLS + 1))


def test_messages_that_a_lost_worker_had_received_are_sent_again(
    store: KeyValueStore, worker_node: WorkerNode, other_worker: WorkerNode, broker: Redis
) -> None:
    worker_node.stop()
    with ThreadPoolExecutor(CALLERS) as threads:
        counting = [threads.submit(store.increment, "n", "counter", timeout=30) for _ in range(CALLERS)]
        wait_until(lambda: not store.dispatcher()._coalescer._held and broker.llen("kv") >= 4, what="all messages")
        lost = [broker.rpop("kv") for _ in range(broker.llen("kv"))]
        other_worker.start()
        assert sorted(count.result().value for count in counting) == list(range(1, CALLERS + 1))
    assert len(lost) < CALLERS


def test_a_worker_that_does_not_know_coalescing_gets_single_calls(
    kv_environ: dict[str, str], tmp_path: Path, store: KeyValueStore, worker_node: WorkerNode
) -> None:
    worker_node.stop()
    options = ["-A", "tests.support.older_app", "worker", "--pool=solo", "-l", "INFO"]
    older = ProcessNode("older", [sys.executable, "-m", "celery", *options], directory=tmp_path, environ=kv_environ)
    older.start()
    try:
        store.get("n", "k", timeout=30)
        with ThreadPoolExecutor(CALLERS) as threads:
            counts = list(threads.map(lambda _: store.increment("n", "c", timeout=30).value, range(CALLS)))
        assert sorted(counts) == list(range(1, CALLS + 1))
    finally:
        older.teardown()


def test_without_a_worker_each_call_ends_at_its_deadline(
    settings: Settings, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    worker_node.stop()

    def call(store: KeyValueStore, number: int) -> object:
        seconds, started = 1.5 + number % 3 / 2, time.monotonic()
        with finishes_within(seconds + 1), pytest.raises(KVStoreError) as caught:
            store.increment("n", "counter", timeout=seconds)
        assert time.monotonic() - started > seconds - 0.05
        return type(caught.value)

    with KeyValueStore(settings) as store, ThreadPoolExecutor(CALLERS) as threads:
        assert set(threads.map(lambda number: call(store, number), range(CALLERS * 3))) == {OperationTimeoutError}
        valkey_node.kill()
        errors = set(threads.map(lambda number: call(store, number), range(CALLERS * 3)))
        assert QueueUnavailableError in errors
        assert errors <= {QueueUnavailableError, OperationTimeoutError}


def test_a_cancelled_call_does_not_overtake_a_later_one(
    settings: Settings, postgres_url: str, worker_node: WorkerNode
) -> None:
    assert worker_node.ready()

    async def use() -> object:
        async with AsyncKeyValueStore(settings) as store:
            await store.set("n", "locked", 1)
            with locked_entry(postgres_url, "locked"):
                await asyncio.gather(*(store.get("n", "k") for _ in range(CALLERS)))
                slow = asyncio.create_task(store.increment("n", "locked", timeout=20))
                await asyncio.sleep(0)
                cancelled = asyncio.create_task(store.set("n", "k", "cancelled", timeout=20))
                await asyncio.sleep(0.004)
                cancelled.cancel()
                await asyncio.sleep(0.5)
                await store.set("n", "k", "later", timeout=20)
            await slow
            return (await store.get("n", "k")).value

    assert asyncio.run(use()) == "later"


def test_a_coalesced_message_made_by_hand(settings: Settings, store: KeyValueStore, worker_node: WorkerNode) -> None:
    assert worker_node.ready()
    app = make_celery(settings)

    def results_of(calls: dict[str, tuple[str, dict[str, Any]]], **options: Any) -> Any:
        payload = encode_many({name: (TOOLS[tool], arguments) for name, (tool, arguments) in calls.items()})
        sent = app.send_task(APPLY_MANY_TASK, kwargs=payload, queue="kv", **options)
        return sent.get(timeout=10)["results"]

    late = encode_request({"namespace": "n", "key": "late"}, deadline=time.time() - 5)
    soon = encode_request({"namespace": "n", "key": "c"}, deadline=time.time() + 5)
    results = results_of(
        {
            "late": ("kv_increment", late),
            "soon": ("kv_increment", soon),
            "no key": ("kv_increment", {"namespace": "n"}),
            "a list": ("kv_list_keys", {"namespace": "n"}),
            "x" * 1000: ("kv_get", {"namespace": "n", "key": "k"}),
        }
    )
    assert results.keys() <= {"soon", "x" * 1000}
    assert store.increment("n", "c", idempotency_key="soon").value == 1
    assert not store.get("n", "late").found
    assert redelivered(app) == {}
    assert app.send_task(APPLY_MANY_TASK, args=(1,), queue="kv").get(timeout=10, propagate=False) is not None


def redelivered(app: Celery) -> Any:
    """The results of a message that is marked as redelivered."""
    payload = encode_many({"again": (TOOLS["kv_increment"], {"namespace": "n", "key": "again"})})
    with app.connection_for_write() as connection:
        message = app.amqp.create_task_message("message", APPLY_MANY_TASK, kwargs=payload)
        properties = {**message.properties, "delivery_info": {"redelivered": True}}
        app.amqp.Producer(connection.channel()).publish(
            message.body, headers=message.headers, exchange="", routing_key="kv", serializer="json", **properties
        )
    return app.AsyncResult("message").get(timeout=10)["results"]
