"""Under overload a process sends no more than it may, and a worker drops late messages cheaply and answers them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis

from kvworker import (
    AsyncKeyValueStore,
    KeyValueStore,
    OperationExpiredError,
    OperationNotSentError,
    OperationTimeoutError,
    PipelineError,
    Settings,
)
from kvworker.ops.fleet import ask_workers
from kvworker.ops.overview.activity import activity_since_start
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

GET = {"namespace": "n", "key": "k"}
LATE_CALLS = 600
#: Enough for a busy machine to send them all.
LATE_SECONDS = 5.0


@pytest.fixture
def broker(valkey_node: ValkeyNode) -> Iterator[Redis]:
    with valkey_node.client() as client:
        yield client


def with_limit(settings: Settings, limit: int) -> Settings:
    return settings.model_copy(update={"facade": settings.facade.model_copy(update={"max_calls_in_flight": limit})})


def calls_of(broker: Redis, command: str) -> int:
    info: dict[str, Any] = broker.info("commandstats")
    return int(info.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_a_process_sends_no_more_calls_than_it_may_have_in_flight(
    settings: Settings, broker: Redis, request: pytest.FixtureRequest
) -> None:
    with KeyValueStore(with_limit(settings, 3)) as store:
        pending = [store.submit("kv_get", GET, timeout=60) for _ in range(3)]
        for call in (store.submit, store.call):
            with pytest.raises(OperationNotSentError, match="applied nothing"):
                call("kv_get", GET, timeout=0.2)
        assert broker.llen("kv") == 3
        request.getfixturevalue("worker_node")
        assert [each.result().found for each in pending] == [False] * 3
        assert store.get("n", "k", timeout=60).found is False


def test_a_repeated_write_that_is_not_sent_does_not_deny_that_an_earlier_attempt_was_applied(
    settings: Settings, request: pytest.FixtureRequest
) -> None:
    keyed = {**GET, "idempotency_key": "once"}
    with KeyValueStore(with_limit(settings, 1)) as store:
        first = store.submit("kv_increment", keyed, timeout=60)
        with pytest.raises(OperationNotSentError) as caught:
            store.call("kv_increment", keyed, timeout=0.2)
        assert str(caught.value).startswith("this attempt was not sent, so it applied nothing")
        request.getfixturevalue("worker_node")
        assert first.result().value == 1
        repeated = store.call("kv_increment", keyed, timeout=60)
    assert (repeated["value"], repeated["replayed"]) == (1, True)


def test_an_event_loop_with_many_calls_sends_no_more_either(settings: Settings, broker: Redis) -> None:
    async def use() -> Counter[str]:
        async with AsyncKeyValueStore(with_limit(settings, 20)) as store:
            calls = (store.get("n", f"k{number}", timeout=3) for number in range(3000))
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            for _ in range(20):
                await store.submit("kv_get", GET, timeout=60)
            # A pipeline bounds itself. If it waited here, it would block the event loop.
            with pytest.raises(PipelineError) as caught:
                async with store.pipeline(timeout=1) as pipeline:
                    pipeline.set("n", "k", 1)
            assert isinstance(caught.value.errors[0], OperationTimeoutError)
        return Counter(type(outcome).__name__ for outcome in outcomes)

    outcomes = asyncio.run(use())
    assert outcomes["OperationNotSentError"] >= 2900
    assert outcomes["OperationTimeoutError"] <= 100
    assert broker.llen("kv") <= 200


@pytest.mark.parametrize(
    "worker_arguments", [["--pool=threads", "-c2"], ["--pool=prefork", "-c2"], ["--pool=solo"]], ids=str
)
def test_late_messages_are_dropped_many_at_once_and_their_callers_are_told(
    settings: Settings,
    store: KeyValueStore,
    broker: Redis,
    worker_arguments: list[str],
    request: pytest.FixtureRequest,
) -> None:
    late = [store.submit("kv_get", GET, timeout=LATE_SECONDS) for _ in range(LATE_CALLS // 2)]
    live = store.submit("kv_set", {**GET, "value": 1}, timeout=120)
    late += [store.submit("kv_increment", GET, timeout=LATE_SECONDS) for _ in range(LATE_CALLS // 2)]
    late_until = time.monotonic() + LATE_SECONDS
    also_live = store.submit("kv_set", {**GET, "key": "l", "value": 2}, timeout=120)
    wait_until(lambda: broker.llen("kv") == LATE_CALLS + 2 and time.monotonic() > late_until, what="a late queue")
    node: WorkerNode = request.getfixturevalue("worker_node")
    for pending in late:
        with pytest.raises(OperationExpiredError) as caught:
            pending.result(timeout=60)
        assert caught.value.operation_id == pending.operation_id
    assert [live.result().value, also_live.result().value] == [1, 2]
    assert store.get("n", "k", timeout=60).value == 1
    assert "dropped" in node.logs()
    wait_until(lambda: activity_since_start(ask_workers(settings)).late == LATE_CALLS, what="the calls counted as late")
    assert node.logs().count("received") <= 5, "late messages reached the pool"
    # One message at a time takes a BRPOP, an MGET and more for each.
    assert calls_of(broker, "brpop") < LATE_CALLS / 4
    assert calls_of(broker, "mget") < LATE_CALLS / 4
    wait_until(lambda: broker.hlen("kvworker.unacked") == 0, what="messages acknowledged")


def test_a_repeated_write_whose_message_is_late_is_answered_from_its_record(
    store: KeyValueStore, settings: Settings, worker_node: WorkerNode
) -> None:
    keyed = {**GET, "idempotency_key": "once"}
    assert store.submit("kv_increment", keyed, timeout=60).result().value == 1
    worker_node.kill("SIGSTOP")
    again = store.submit("kv_increment", keyed, timeout=1)
    with pytest.raises(OperationTimeoutError):
        again.result()
    worker_node.kill("SIGCONT")
    result = again.result(timeout=60)
    assert (result.value, result.replayed) == (1, True)


def test_a_worker_that_may_run_no_scripts_drops_late_messages_one_by_one(
    store: KeyValueStore, broker: Redis, request: pytest.FixtureRequest
) -> None:
    broker.acl_setuser(
        "default", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"], commands=["-eval"]
    )
    late = [store.submit("kv_get", GET, timeout=LATE_SECONDS) for _ in range(20)]
    late_until = time.monotonic() + LATE_SECONDS
    wait_until(lambda: broker.llen("kv") == 20 and time.monotonic() > late_until, what="a late queue")
    request.getfixturevalue("worker_node")
    for pending in late:
        with pytest.raises(OperationExpiredError):
            pending.result(timeout=60)
    assert store.get("n", "k", timeout=60).found is False
