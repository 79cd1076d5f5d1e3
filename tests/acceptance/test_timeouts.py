"""The meaning of a timeout: outcome unknown, known not applied, or never sent. And no call hangs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from psycopg import sql
from sqlalchemy import make_url

from kvworker import (
    AsyncKeyValueStore,
    InvalidRequestError,
    KeyValueStore,
    OperationExpiredError,
    OperationTimeoutError,
    QueueUnavailableError,
    Settings,
    StoreUnavailableError,
)
from tests.support.database import locked_entry
from tests.support.elapsed import finishes_within
from tests.support.processes import ValkeyNode, WorkerNode, wait_until
from tests.support.servers import PostgresServer
from tests.support.threads import threads_ended

#: The most by which a call may exceed its timeout.
GRACE_SECONDS = 1.0


@contextmanager
def within(timeout_seconds: float) -> Iterator[None]:
    with finishes_within(timeout_seconds + GRACE_SECONDS):
        yield


def test_without_a_worker_the_outcome_is_unknown_and_repeating_applies_once(
    store: KeyValueStore, request: pytest.FixtureRequest
) -> None:
    with within(2.0), pytest.raises(OperationTimeoutError) as caught:
        store.increment("n", "c", timeout=2.0)
    request.getfixturevalue("worker_node")
    again = store.increment("n", "c", idempotency_key=caught.value.operation_id, timeout=10)
    assert (again.value, again.replayed) == (1, False)
    assert store.increment("n", "c", idempotency_key=caught.value.operation_id).replayed
    assert store.get("n", "c").value == 1


def test_a_message_past_its_deadline_is_known_not_applied(store: KeyValueStore, request: pytest.FixtureRequest) -> None:
    pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=2.0)
    with pytest.raises(OperationTimeoutError):
        pending.result()
    request.getfixturevalue("worker_node")
    with pytest.raises(OperationExpiredError) as caught:
        pending.result(timeout=10)
    assert caught.value.operation_id == pending.operation_id
    assert not store.get("n", "c").found


def test_an_operation_slower_than_its_caller_is_found_applied_later(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str
) -> None:
    store.set("n", "c", 1)
    with locked_entry(postgres_url, "c") as blocker:
        with within(2.0), pytest.raises(OperationTimeoutError) as caught:
            store.increment("n", "c", timeout=2.0)
        blocker.rollback()
    again = store.increment("n", "c", idempotency_key=caught.value.operation_id)
    assert (again.value, again.replayed) == (2, True)


def test_no_broker(store: KeyValueStore, valkey_node: ValkeyNode) -> None:
    valkey_node.kill()
    for timeout in (0.2, 1.5):
        with within(timeout), pytest.raises(QueueUnavailableError, match="not applied"):
            store.set("n", "k", 1, timeout=timeout)


def test_a_broker_that_went_away_after_use(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    store.set("n", "k", 1)
    valkey_node.kill()
    with within(1.0), pytest.raises(QueueUnavailableError):
        store.set("n", "k", 2, timeout=1.0)
    valkey_node.start()
    assert store.set("n", "k", 3, timeout=20).value == 3


def test_a_broker_that_comes_back_in_time(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    store.set("n", "c", 0)
    valkey_node.kill()
    pending = [store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=30) for _ in range(5)]
    wait_until(lambda: pending[0]._reply.message.last_problem, what="a failed attempt")
    valkey_node.start()
    assert sorted(reply.result().value for reply in pending) == [1, 2, 3, 4, 5]


def test_a_short_wait_for_a_result_does_not_abandon_it(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    valkey_node.kill()
    pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=30)
    for _ in range(3):
        with within(0.1), pytest.raises(OperationTimeoutError):
            pending.result(timeout=0.1)
    valkey_node.start()
    assert pending.result().value == 1


def test_no_call_hangs_on_a_frozen_broker(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    store.set("n", "k", 1)
    valkey_node.kill("SIGSTOP")
    try:
        for timeout in (0.2, 1.0, 4.0):
            with within(timeout), pytest.raises((QueueUnavailableError, OperationTimeoutError)):
                store.set("n", "k", 2, timeout=timeout)
        with ThreadPoolExecutor(20) as threads, within(1.0):
            outcomes = list(threads.map(lambda _: _error_of(store, 1.0), range(20)))
        assert all(isinstance(error, QueueUnavailableError | OperationTimeoutError) for error in outcomes)
    finally:
        valkey_node.kill("SIGCONT")
    assert store.set("n", "k", 3, timeout=20).value == 3


def _error_of(store: KeyValueStore, timeout: float) -> Exception | None:
    try:
        store.set("n", "k", 2, timeout=timeout)
    except Exception as error:  # noqa: BLE001 - the test checks its class
        return error
    return None


def test_an_unroutable_broker(settings: Settings) -> None:
    # 192.0.2.0/24 is reserved for documentation (RFC 5737): either no host answers or the network refuses.
    far = settings.model_copy(
        update={"queue": settings.queue.model_copy(update={"broker_url": "redis://192.0.2.1:6379/0"})}
    )
    with KeyValueStore(far) as store, within(0.5), pytest.raises(QueueUnavailableError):
        store.get("n", "k", timeout=0.5)


def test_coroutines_time_out_in_the_same_way(settings: Settings, valkey_node: ValkeyNode) -> None:
    async def use() -> None:
        async with AsyncKeyValueStore(settings) as store:
            with within(2.0), pytest.raises(OperationTimeoutError):
                await store.set("n", "k", 1, timeout=2.0)
            valkey_node.kill()
            with within(0.3), pytest.raises(QueueUnavailableError):
                await store.set("n", "k", 1, timeout=0.3)

    asyncio.run(use())


def test_an_unavailable_database_is_retried_within_the_deadline(
    store: KeyValueStore, worker_node: WorkerNode, postgres_url: str, postgres_server: PostgresServer
) -> None:
    store.set("n", "c", 0)
    database = make_url(postgres_url).database
    # Refusing new connections and cutting the workers' own makes the database unavailable to them.
    postgres_server.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS false')
    cut = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}")
    postgres_server.execute(cut.format(sql.Literal(database)))
    with within(1.0), pytest.raises((StoreUnavailableError, OperationTimeoutError)) as caught:
        store.increment("n", "c", timeout=1.0)
    operation_id = getattr(caught.value, "operation_id", "")
    assert operation_id
    arguments = {"namespace": "n", "key": "c", "idempotency_key": operation_id}
    pending = store.submit("kv_increment", arguments, timeout=20)
    wait_until(lambda: worker_node.logs().count("trying again") > 3, what="retries in the log")
    postgres_server.execute(f'ALTER DATABASE "{database}" ALLOW_CONNECTIONS true')
    assert pending.result().value == 1
    assert store.get("n", "c").value == 1


def test_a_store_that_is_closed_while_its_first_call_begins_stays_closed(settings: Settings) -> None:
    for delay_seconds in (0.0, 0.001, 0.003, 0.006, 0.012):
        with threads_ended(), ThreadPoolExecutor(1) as thread:
            store = KeyValueStore(settings)
            call = thread.submit(store.submit, "kv_get", {"namespace": "n", "key": "k"}, timeout=1.0)
            time.sleep(delay_seconds)
            store.close()
            with contextlib.suppress(InvalidRequestError):
                call.result()


def test_a_closed_store_says_so(store: KeyValueStore, worker_node: WorkerNode) -> None:
    store.set("n", "k", 1)
    store.close()
    store.close()
    with within(0.3), pytest.raises(InvalidRequestError, match="closed"):
        store.get("n", "k", timeout=0.3)


@pytest.mark.parametrize("timeout", [1e-9, 1e300, 10**400], ids=["tiny", "huge", "larger than any float"])
def test_an_extreme_timeout_is_accepted(store: KeyValueStore, worker_node: WorkerNode, timeout: float) -> None:
    pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=60)
    with contextlib.suppress(OperationTimeoutError, QueueUnavailableError):
        assert pending.result(timeout).value == 1
    with contextlib.suppress(OperationTimeoutError, QueueUnavailableError):
        assert store.get("n", "k", timeout=timeout).found is False
