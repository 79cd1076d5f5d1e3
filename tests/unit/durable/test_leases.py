"""Leases and semaphores of threads, on a store without a queue."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from kvworker import (
    AcquirePermitResult,
    InlineKeyValueStore,
    InvalidRequestError,
    InvalidTTLError,
    InvalidValueTypeError,
    LeaseHeldError,
    LeaseLostError,
    NamespaceQuotaExceededError,
    OperationTimeoutError,
)
from kvworker.durable import grants
from kvworker.errors import KVStoreError, StoreUnavailableError, UnsupportedMessageError
from kvworker.testing.support import eventually

SHORT_SECONDS = 0.05


@pytest.fixture
def store(tmp_path: Path) -> Iterator[InlineKeyValueStore]:
    adapter = {"url": f"sqlite:///{tmp_path}/kv.sqlite", "namespace_quota_bytes": 4000, "migrate_on_start": True}
    settings = {"tools": {"kv_store": {"adapters": {"sqlite": adapter}, "default_adapter": "sqlite"}}}
    with InlineKeyValueStore(settings) as inline:
        yield inline


def until_of(store: InlineKeyValueStore) -> int:
    value = cast(dict[str, Any], store.get("n", "l").value)
    return int(value["$permits"][0]["until"])


def until(condition: Callable[[], bool]) -> None:
    eventually(condition, timeout_seconds=60)


def test_a_lease_has_one_holder_and_a_growing_token(store: InlineKeyValueStore) -> None:
    tokens = []
    for _ in range(3):
        with store.lease("n", "l") as lease:
            tokens.append(lease.token)
            lease.check()
            with pytest.raises(LeaseHeldError) as caught, store.lease("n", "l"):
                pytest.fail("two holders")
            assert (caught.value.namespace, caught.value.key) == ("n", "l")
            assert 0 < caught.value.retry_after_seconds <= 30
        assert not store.get("n", "l").found
    assert tokens == sorted(set(tokens))


def test_a_lease_is_acquired_again_only_after_its_release(store: InlineKeyValueStore) -> None:
    lease = store.lease("n", "l")
    for use in (lambda: lease.token, lease.check, lease.renew, lease.release):
        with pytest.raises(InvalidRequestError, match="not held"):
            use()
    assert not lease.lost
    first = lease.acquire().token
    with pytest.raises(InvalidRequestError, match="held already"):
        lease.acquire()
    assert lease.release()
    assert lease.acquire().token > first


def test_a_block_may_release_its_lease(store: InlineKeyValueStore) -> None:
    with store.lease("n", "l") as lease:
        assert lease.release()
        with store.lease("n", "l"):
            pass


def test_a_waiter_gets_the_lease_after_its_release(store: InlineKeyValueStore) -> None:
    with ThreadPoolExecutor(1) as threads:
        with store.lease("n", "l") as lease:
            waiter = threads.submit(store.lease("n", "l", wait_seconds=60).acquire)
            time.sleep(SHORT_SECONDS)  # it may have tried by now; both orders must pass
            first = lease.token
        assert waiter.result(60).token > first


def test_a_wait_is_bounded(store: InlineKeyValueStore) -> None:
    with store.lease("n", "l"):
        began = time.monotonic()
        with pytest.raises(LeaseHeldError):
            store.lease("n", "l", wait_seconds=0.3).acquire()
        assert time.monotonic() - began >= 0.3


def test_a_late_holder_learns_it_and_keeps_the_next_one(store: InlineKeyValueStore) -> None:
    late = store.lease("n", "l", ttl_seconds=SHORT_SECONDS).acquire()
    until(lambda: late.lost)
    following = store.lease("n", "l", wait_seconds=60).acquire()
    assert following.token > late.token
    for use in (late.check, late.renew):
        with pytest.raises(LeaseLostError):
            use()
    with pytest.raises(LeaseLostError):
        late.__exit__(None, None, None)
    following.renew()
    assert not following.lost
    assert following.release()


def test_an_error_of_the_block_is_not_hidden(store: InlineKeyValueStore) -> None:
    lease = store.lease("n", "l").acquire()
    store.delete("n", "l")
    assert not lease.lost
    lease.__exit__(ZeroDivisionError, ZeroDivisionError(), None)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_deleted_or_replaced_lease_is_lost_at_the_next_renewal(store: InlineKeyValueStore, *, replaced: bool) -> None:
    lease = store.lease("n", "l").acquire()
    if replaced:
        store.set("n", "l", "something else")
    else:
        store.delete("n", "l")
    with pytest.raises(LeaseLostError):
        lease.renew()
    assert lease.lost
    assert not lease.release()
    assert store.get("n", "l").found is replaced


def test_a_renewal_moves_the_expiry(store: InlineKeyValueStore) -> None:
    with store.lease("n", "l") as lease:
        before, token = until_of(store), lease.token
        lease.renew()
        assert until_of(store) > before
        assert lease.token == token


def test_a_lease_renews_itself_until_it_is_lost(store: InlineKeyValueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grants, "_MAX_RENEWAL_SECONDS", 0.02)
    lease = store.lease("n", "l", ttl_seconds=600, auto_renew=True).acquire()
    before = until_of(store)
    until(lambda: until_of(store) > before)
    store.delete("n", "l")
    until(lambda: lease.lost)
    until(lambda: not renewing())
    assert not lease.release()


@pytest.mark.parametrize("released", [False, True])
def test_a_lease_that_is_released_or_dropped_is_not_renewed(
    store: InlineKeyValueStore, monkeypatch: pytest.MonkeyPatch, *, released: bool
) -> None:
    monkeypatch.setattr(grants, "_MAX_RENEWAL_SECONDS", 0.02)
    lease = store.lease("n", "l", ttl_seconds=600, auto_renew=True).acquire()
    assert renewing()
    if released:
        lease.release()
    del lease
    gc.collect()
    until(lambda: not renewing())


def renewing() -> bool:
    return any(thread.name == "kvworker-lease" for thread in threading.enumerate())


def test_a_semaphore_has_as_many_holders_as_permits(store: InlineKeyValueStore) -> None:
    inside, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> int:
        nonlocal inside, most
        with store.semaphore("n", "s", 3, wait_seconds=120) as permit:
            with lock:
                inside += 1
                most = max(most, inside)
            token = permit.token
            with lock:
                inside -= 1
        return token

    with ThreadPoolExecutor(8) as threads:
        tokens = list(threads.map(work, range(24)))
    assert len(set(tokens)) == 24
    assert most <= 3
    assert not store.get("n", "s").found


class Unanswered(InlineKeyValueStore):
    """A store whose first attempt is applied, and whose answer does not arrive."""

    losses = 1
    error: type[BaseException] = OperationTimeoutError

    def acquire_permit(self, *_: Any, timeout: float | None = None, **arguments: Any) -> AcquirePermitResult:
        pending = self.submit("kv_acquire_permit", arguments, timeout=timeout)
        result: AcquirePermitResult = pending.result()
        if self.losses:
            self.losses -= 1
            raise self.error(pending.operation_id)
        return result


def test_a_repeat_finds_the_lease_of_an_attempt_without_an_answer() -> None:
    with Unanswered() as store, store.lease("n", "l", wait_seconds=60) as lease:
        assert store.losses == 0
        permits = cast(dict[str, Any], store.get("n", "l").value)["$permits"]
        assert [permit["token"] for permit in permits] == [lease.token]


def test_an_attempt_without_an_answer_leaves_no_lease() -> None:
    with Unanswered() as store:
        with pytest.raises(OperationTimeoutError):
            store.lease("n", "l").acquire()
        assert not store.get("n", "l").found


def test_an_interrupted_waiter_leaves_no_lease() -> None:
    with Unanswered() as store:
        store.error = KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt):
            store.lease("n", "l", wait_seconds=60).acquire()
        assert not store.get("n", "l").found


@pytest.mark.parametrize(
    "error",
    [StoreUnavailableError("away", "op"), UnsupportedMessageError("an older worker does not know kv_release_permit")],
    ids=lambda error: type(error).__name__,
)
def test_a_release_that_fails_is_logged_and_the_lease_expires(
    store: InlineKeyValueStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: KVStoreError
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    with store.lease("n", "l"):
        monkeypatch.setattr(store, "release_permit", fail)
    assert caplog.messages == ["a lease was not released and will expire: " + type(error).__name__]
    assert store.get("n", "l").found


def test_a_full_namespace_has_no_room_for_a_lease(store: InlineKeyValueStore) -> None:
    store.set("n", "rest", "x" * 3990)
    with pytest.raises(NamespaceQuotaExceededError):
        store.lease("n", "l", wait_seconds=60).acquire()
    store.set("n", "l2", 1)
    with pytest.raises(InvalidValueTypeError):
        store.lease("n", "l2", wait_seconds=60).acquire()


@pytest.mark.parametrize("name", ["ключ", "a b\n", "%s", "'; --", "$permits", "k" * 1024])
@pytest.mark.parametrize("ttl_seconds", [30, 1e300])
def test_any_name_and_any_ttl(store: InlineKeyValueStore, name: str, ttl_seconds: float) -> None:
    with store.lease("n", name, ttl_seconds=ttl_seconds, auto_renew=True) as lease:
        assert not lease.lost


def test_a_ttl_of_nothing_is_lost_at_once(store: InlineKeyValueStore) -> None:
    lease = store.lease("n", "l", ttl_seconds=1e-9)
    with pytest.raises((LeaseLostError, LeaseHeldError)), lease:
        pass
    assert store.lease("n", "l", wait_seconds=60).acquire().release()


@pytest.mark.parametrize(
    "wrong",
    [
        {"wait_seconds": -1},
        {"wait_seconds": float("inf")},
        {"wait_seconds": True},
        {"wait_seconds": "1"},
        {"auto_renew": 1},
        {"timeout": 0},
        {"name": ""},
    ],
)
def test_wrong_arguments_are_refused(store: InlineKeyValueStore, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        store.lease(**{"namespace": "n", "name": "l", **wrong})
    with pytest.raises(InvalidTTLError):
        store.lease("n", "l", ttl_seconds=0)
    with pytest.raises(InvalidRequestError):
        store.semaphore("n", "s", 0)


def test_a_forked_child_does_not_hold_its_parents_lease(store: InlineKeyValueStore) -> None:
    lease = store.lease("n", "l").acquire()
    child = os.fork()
    if child == 0:  # pragma: no cover - coverage does not follow
        os._exit(0 if lease.lost and not lease.release() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not lease.lost
    assert lease.release()
