"""Pipelines through a real broker, worker and database: few messages, in order, applied once, and no call hangs."""

# ruff: noqa: PT012 - what a with block of several statements raises at its end is the subject

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from kvworker import (
    AsyncKeyValueStore,
    AsyncPipeline,
    InvalidRequestError,
    InvalidValueTypeError,
    KeyValueStore,
    OperationNotSentError,
    OperationTimeoutError,
    Pipeline,
    PipelinedResult,
    PipelineError,
    PolicyDeniedError,
    Settings,
)
from kvworker.ops.migration import migrate_store
from tests.support.database import locked_entry
from tests.support.elapsed import finishes_within
from tests.support.processes import ValkeyNode, WorkerNode

NAMESPACES = [f"n{number}" for number in range(4)]
#: The most by which a flush may exceed its timeout.
GRACE_SECONDS = 1.0


def fill(p: Pipeline | AsyncPipeline, count: int) -> list[PipelinedResult[Any]]:
    """Collect so many increments of one counter in each namespace. Their values show their order."""
    return [p.increment(namespace, "c") for _ in range(count) for namespace in NAMESPACES]


def in_order(handles: list[PipelinedResult[Any]]) -> bool:
    """Return whether each namespace's counter was incremented in the order of the calls."""
    counted = [[h.result().value for h in handles if h.result().namespace == name] for name in NAMESPACES]
    return all(values == list(range(1, len(values) + 1)) for values in counted)


def messages(valkey_node: ValkeyNode) -> int:
    with valkey_node.client() as client:
        return int(client.info("commandstats").get("cmdstat_lpush", {"calls": 0})["calls"])


def test_many_operations_are_few_messages_and_each_namespace_is_in_order(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    store.set("n0", "text", "no counter")
    with valkey_node.client() as client:
        client.config_resetstat()
    with pytest.raises(PipelineError) as caught, store.pipeline(timeout=60) as p:
        handles = fill(p, 2500)
        last = [p.get(name, "c") for name in NAMESPACES]
        refused = p.increment("n0", "text")
    assert in_order(handles)
    assert [read.result().value for read in last] == [2500] * 4
    assert [type(error) for error in caught.value.errors] == [InvalidValueTypeError]
    with pytest.raises(InvalidValueTypeError):
        refused.result()
    # 10,005 operations: for each namespace 1000, 1000, the rest, and the reads.
    assert messages(valkey_node) == 4 * 4


def test_coroutines(settings: Settings, worker_node: WorkerNode) -> None:
    async def use() -> None:
        async with AsyncKeyValueStore(settings) as store:
            async with store.pipeline(timeout=60) as p:
                handles = fill(p, 1100)
                with pytest.raises(InvalidRequestError, match="no result yet"):
                    handles[-1].result()
                await p.flush()
                assert in_order(handles)
                read = p.get("n0", "c")
            assert read.result().value == 1100
            with pytest.raises(PipelineError):
                async with store.pipeline() as p:
                    p.set("n0", "c", 1, if_absent=True)
            with pytest.raises(ZeroDivisionError):
                async with store.pipeline() as p:
                    unsent = p.set("n0", "d", 1)
                    _ = 1 / 0
            with pytest.raises(OperationNotSentError):
                unsent.result()

    asyncio.run(use())


def test_the_event_loop_keeps_running_while_a_pipeline_waits(settings: Settings, valkey_node: ValkeyNode) -> None:
    async def use() -> int:
        async with AsyncKeyValueStore(settings) as store:
            p = store.pipeline(timeout=1.0)
            handle = p.increment("n", "c")
            flushing = asyncio.ensure_future(p.flush())
            turns = 0
            while not flushing.done():
                await asyncio.sleep(0.01)
                turns += 1
            with pytest.raises(PipelineError):
                await flushing
            with pytest.raises(OperationTimeoutError):
                handle.result()
            return turns

    assert asyncio.run(use()) > 20


def test_a_cancelled_flush_sends_nothing_more(settings: Settings, valkey_node: ValkeyNode) -> None:
    async def use() -> None:
        async with AsyncKeyValueStore(settings) as store:
            p = store.pipeline(timeout=30)
            handles: list[PipelinedResult[Any]] = [p.increment("n", "c"), p.get("n", "c")]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(p.flush(), 0.3)
            for handle, cls in zip(handles, (OperationTimeoutError, OperationNotSentError), strict=True):
                with pytest.raises(cls, match="interrupted"):
                    handle.result()

    asyncio.run(use())
    assert messages(valkey_node) == 1


def test_a_pipeline_repeated_after_a_timeout_is_applied_once(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str
) -> None:
    for name in NAMESPACES:
        store.set(name, "held", 0)
    with locked_entry(postgres_url, "held") as blocker:
        with finishes_within(2.0 + GRACE_SECONDS):
            p = store.pipeline(timeout=2.0)
            handles = [p.increment(name, key) for name in NAMESPACES for key in ("c", "held")]
            handles += fill(p, 600)
            with pytest.raises(PipelineError) as caught:
                p.flush()
        blocker.rollback()
    assert Counter(type(handle.outcome) for handle in handles).keys() >= {OperationTimeoutError}
    key = caught.value.idempotency_key
    for attempt in (1, 2):
        with store.pipeline(idempotency_key=key, timeout=30) as again:
            handles = [again.increment(name, key) for name in NAMESPACES for key in ("c", "held")]
            handles += fill(again, 600)
        assert all(handle.result().replayed for handle in handles) or attempt == 1
        assert [store.get(name, "c").value for name in NAMESPACES] == [601] * 4
        assert [store.get(name, "held").value for name in NAMESPACES] == [1] * 4


def test_without_a_worker_only_the_first_message_is_sent(
    store: KeyValueStore, valkey_node: ValkeyNode, request: pytest.FixtureRequest
) -> None:
    with (
        finishes_within(1.5 + GRACE_SECONDS),
        pytest.raises(PipelineError) as caught,
        store.pipeline(timeout=1.5, idempotency_key="run-7") as p,
    ):
        handles = [p.increment("n", "c") for _ in range(1500)]
    assert Counter(map(type, caught.value.errors)) == {OperationTimeoutError: 1000, OperationNotSentError: 500}
    assert "operation 'run-7': no result within the timeout" in str(caught.value)
    with pytest.raises(OperationNotSentError, match="an earlier message of namespace 'n' failed"):
        handles[1499].result()
    assert messages(valkey_node) == 1
    request.getfixturevalue("worker_node")
    with store.pipeline(timeout=30, idempotency_key="run-7") as p:
        handles = [p.increment("n", "c") for _ in range(1500)]
    assert [handle.result().value for handle in handles] == list(range(1, 1501))


def test_a_slow_namespace_does_not_delay_others(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str
) -> None:
    store.set("slow", "held", 0)
    with locked_entry(postgres_url, "held") as blocker:
        with store.pipeline(raise_on_error=False, timeout=2.0) as p:
            slow: list[PipelinedResult[Any]] = [p.increment("slow", "held"), p.get("slow", "held")]
            other: list[PipelinedResult[Any]] = [p.increment("n", "c"), p.get("n", "c"), p.increment("n", "c")]
        blocker.rollback()
    assert [type(handle.outcome) for handle in slow] == [OperationTimeoutError, OperationNotSentError]
    assert [handle.result().value for handle in other] == [1, 1, 2]


def test_a_block_that_raises_does_not_wait(store: KeyValueStore, valkey_node: ValkeyNode) -> None:
    with finishes_within(10), pytest.raises(ZeroDivisionError), store.pipeline(timeout=30) as p:
        handles = [p.increment("n", "c") for _ in range(1500)]
        _ = 1 / 0
    assert Counter(type(handle.outcome) for handle in handles) == {
        OperationTimeoutError: 1000,
        OperationNotSentError: 500,
    }
    with pytest.raises(OperationTimeoutError, match="left by an error"):
        handles[0].result()


def test_an_answer_that_arrived_in_time_counts_even_if_it_is_read_late(
    settings: Settings, worker_node: WorkerNode
) -> None:
    async def use() -> None:
        async with AsyncKeyValueStore(settings) as store:
            await store.set("n", "k", 1)
            pending = await store.submit("kv_get", {"namespace": "n", "key": "k"}, timeout=2.0)
            async with store.pipeline(timeout=2.0) as p:
                sent = [p.increment("n0", "c") for _ in range(1000)]
                await asyncio.sleep(2.1)
            assert sent[-1].result().value == 1000
            assert (await pending.result()).value == 1

    asyncio.run(use())


@pytest.mark.usefixtures("worker_node")
class TestPolicies:
    @pytest.fixture
    def config_overrides(self) -> dict[str, Any]:
        flags = ["type.system.kv_store_access", "type.system.kv_store_write"]
        personas = {
            "writer": {"flags": flags, "namespaces": {"shared.*": ["read", "write"]}},
            "reader": {"flags": flags[:1]},
        }
        return {"policies": {"signing_key": "the-key-of-this-acceptance-test", "personas": personas}}

    def test_a_worker_applies_its_own_policies(self, settings: Settings) -> None:
        migrate_store(settings)
        allowed_here = changed(settings, {"reader": {"flags": settings.policies.personas["writer"].flags}})
        with KeyValueStore(settings, "writer") as store:
            with store.pipeline() as p:
                written = p.set("shared.a", "k", 1)
                with pytest.raises(PolicyDeniedError):
                    p.set("other", "k", 1)
            assert written.result().value == 1
        with KeyValueStore(allowed_here, "reader") as store:
            with store.pipeline(raise_on_error=False) as p:
                read, denied = p.get("shared.a", "k"), p.set("shared.a", "k", 2)
            assert read.result().value == 1
            with pytest.raises(PolicyDeniedError):
                denied.result()


def changed(settings: Settings, personas: Mapping[str, Any]) -> Settings:
    """The same settings with other policies, like those of a caller with another configuration."""
    mapping = settings.to_mapping()
    key = "the-key-of-this-acceptance-test"
    return Settings.from_mapping({**mapping, "policies": {"signing_key": key, "personas": dict(personas)}})
