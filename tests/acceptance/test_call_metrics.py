"""A program that calls the store has metrics of its calls in its own registry."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry

from kvworker import AsyncKeyValueStore, KeyValueStore, OperationTimeoutError, Settings
from kvworker.ops.metrics import CallMetrics
from tests.support.processes import ValkeyNode, WorkerNode, wait_until


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=2"]


def calls(registry: CollectorRegistry) -> dict[str, float]:
    """Return the number of calls by ``tool outcome reason``."""
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {
        " ".join(sample.labels.values()).strip(): sample.value
        for sample in samples
        if sample.name == "kvworker_calls_total"
    }


def test_calls_of_every_kind_are_counted_as_their_callers_saw_them(settings: Settings, worker_node: WorkerNode) -> None:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry)
    with KeyValueStore(settings, observer=metrics) as store:
        with ThreadPoolExecutor(32) as threads:
            list(threads.map(lambda number: store.set("n", f"k{number}", number, timeout=60), range(200)))
        for number in range(3):
            store.submit("kv_get", {"namespace": "n", "key": f"k{number}"}, timeout=60)
        with store.pipeline(timeout=60) as pipeline:
            for number in range(3):
                pipeline.set("n", f"p{number}", number)
        wait_until(lambda: calls(registry).get("kv_get read") == 3, what="answers without a waiter")

        async def read_all() -> None:
            async with AsyncKeyValueStore(settings, observer=metrics) as store:
                await asyncio.gather(*(store.get("n", f"k{number}", timeout=60) for number in range(20)))

        asyncio.run(read_all())
        _call_in_a_child(store)
        worker_node.stop()
        with pytest.raises(OperationTimeoutError):
            store.set("n", "k", 1, timeout=0.2)
        with pytest.raises(OperationTimeoutError):
            store.get("n", "k", timeout=0.2)
        store.submit("kv_set", {"namespace": "n", "key": "k", "value": 2}, timeout=0.2)
        wait_until(lambda: calls(registry).get("kv_set unknown timeout") == 2, what="a deadline without a waiter")
    assert calls(registry) == {
        "kv_set applied": 200,
        "kv_get read": 23,
        "kv_batch applied": 1,
        "kv_set unknown timeout": 2,
        "kv_get failed timeout": 1,
    }
    assert registry.get_sample_value("kvworker_call_duration_seconds_count", {"tool": "kv_set"}) == 202
    assert registry.get_sample_value("kvworker_calls_in_flight") == 0
    assert (registry.get_sample_value("kvworker_coalesced_calls_sent_sum") or 0) > 1
    assert registry.get_sample_value("kvworker_send_failures_total") == 0


def _call_in_a_child(store: KeyValueStore) -> None:
    """A forked child counts in its copy of the metrics."""
    child = multiprocessing.get_context("fork").Process(target=lambda: store.get("n", "k0", timeout=60))
    child.start()
    child.join(60)
    assert child.exitcode == 0


def test_a_message_that_the_broker_lost_is_counted_when_it_is_sent_again(
    settings: Settings, valkey_node: ValkeyNode, request: pytest.FixtureRequest
) -> None:
    registry = CollectorRegistry()
    with KeyValueStore(settings, observer=CallMetrics(registry)) as store:
        pending = store.submit("kv_set", {"namespace": "n", "key": "k", "value": 1}, timeout=120)
        with valkey_node.client() as client:
            wait_until(lambda: client.lpop("kv"), what="the message")
        wait_until(lambda: (registry.get_sample_value("kvworker_messages_resent_total") or 0) > 0, what="the resend")
        request.getfixturevalue("worker_node")
        assert not pending.result().replayed
    assert calls(registry) == {"kv_set applied": 1}
