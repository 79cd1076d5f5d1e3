"""Cases: permits of leases and semaphores are exact, expire by the database's clock, and have growing tokens."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import (
    BatchRefusedError,
    IdempotencyConflictError,
    InvalidRequestError,
    InvalidTTLError,
    InvalidValueTypeError,
    LeaseLostError,
    NamespaceQuotaExceededError,
)
from kvworker.model import (
    AcquirePermitResult,
    AcquirePermitStep,
    JSONValue,
    ReleasePermitResult,
    ReleasePermitStep,
    RenewPermitResult,
    RenewPermitStep,
    Step,
)
from kvworker.testing.support import SHORT_TTL_SECONDS, AdapterFactory, Cases, eventually, ledger, wait_for_expiry


def acquire(
    adapter: KeyValueStoreAdapter, holder: str, operation_id: str | None = None, ttl_seconds: float = 60.0, **more: Any
) -> AcquirePermitResult:
    """Take a permit of the test's semaphore."""
    step = AcquirePermitStep("acquire_permit", "key", holder=holder, ttl_seconds=ttl_seconds, **more)
    return cast(AcquirePermitResult, adapter.apply_step("namespace", step, operation_id))


def renew(adapter: KeyValueStoreAdapter, holder: str, token: int | None = None) -> RenewPermitResult:
    """Renew a permit of the test's semaphore."""
    step = RenewPermitStep("renew_permit", "key", holder=holder, token=token, ttl_seconds=60.0)
    return cast(RenewPermitResult, adapter.apply_step("namespace", step, None))


def release(
    adapter: KeyValueStoreAdapter, holder: str, token: int | None = None, operation_id: str | None = None
) -> ReleasePermitResult:
    """Release a permit of the test's semaphore."""
    step = ReleasePermitStep("release_permit", "key", holder=holder, token=token)
    return cast(ReleasePermitResult, adapter.apply_step("namespace", step, operation_id))


class PermitCases(Cases):
    """Leases and semaphores."""

    def test_a_lease_has_one_holder(self, adapter: KeyValueStoreAdapter) -> None:
        """Another holder is told when the permit expires."""
        first = acquire(adapter, "one")
        assert first.acquired
        assert first.ttl_seconds == pytest.approx(60, abs=0.1)
        second = acquire(adapter, "two")
        assert not second.acquired
        assert (second.token, second.in_use) == (None, 1)
        assert 50 < (second.retry_after_seconds or 0) <= 60

    def test_a_release_frees_a_lease(self, adapter: KeyValueStoreAdapter) -> None:
        """The next holder gets it at once. In between, the entry takes no room."""
        acquire(adapter, "one")
        assert release(adapter, "one").released
        assert not adapter.get("namespace", "key").found
        assert ledger(adapter, "namespace") == (0, 0)
        assert acquire(adapter, "two").acquired

    def test_a_holder_finds_its_own_permit(self, adapter: KeyValueStoreAdapter) -> None:
        """The same holder keeps its token and takes no second permit, whatever became of its first call."""
        first, again = acquire(adapter, "one", permits=2), acquire(adapter, "one", permits=2)
        assert (again.token, again.in_use) == (first.token, 1)

    def test_a_semaphore_has_several(self, adapter: KeyValueStoreAdapter) -> None:
        """Each holder has its own token, and releases its own permit."""
        tokens = [acquire(adapter, holder, permits=3).token or 0 for holder in "abc"]
        assert tokens == sorted(set(tokens))
        assert not acquire(adapter, "d", permits=3).acquired
        assert release(adapter, "b").released
        assert (acquire(adapter, "d", permits=3).token or 0) > tokens[-1]
        assert not release(adapter, "b").released

    def test_a_token_grows_after_release_deletion_expiry_and_sweep(self, adapter: KeyValueStoreAdapter) -> None:
        """A later holder always has a larger token, whatever removed the earlier one."""
        tokens = [acquire(adapter, "one").token]
        release(adapter, "one")
        tokens.append(acquire(adapter, "two").token)
        adapter.delete("namespace", "key")
        tokens.append(acquire(adapter, "three", ttl_seconds=SHORT_TTL_SECONDS).token)
        wait_for_expiry(adapter, "namespace", "key")
        tokens.append(acquire(adapter, "four", ttl_seconds=SHORT_TTL_SECONDS).token)
        wait_for_expiry(adapter, "namespace", "key")
        adapter.sweep_expired()
        tokens.append(acquire(adapter, "five").token)
        numbers = [token or 0 for token in tokens]
        assert numbers == sorted(set(numbers))
        assert numbers[0] > 0

    def test_a_late_holder_changes_nothing(self, adapter: KeyValueStoreAdapter) -> None:
        """After its TTL a holder can neither renew nor release, and the next holder's permit stays."""
        late = acquire(adapter, "late", ttl_seconds=SHORT_TTL_SECONDS)
        eventually(lambda: acquire(adapter, "next").acquired)
        with pytest.raises(LeaseLostError):
            renew(adapter, "late", late.token)
        assert not release(adapter, "late", late.token).released
        assert not acquire(adapter, "third").acquired
        assert renew(adapter, "next").token > (late.token or 0)

    def test_a_token_tells_two_permits_of_one_holder_apart(self, adapter: KeyValueStoreAdapter) -> None:
        """With the token of an earlier permit, a holder of the same name cannot touch the later one."""
        old = acquire(adapter, "one").token
        release(adapter, "one")
        new = acquire(adapter, "one").token
        with pytest.raises(LeaseLostError):
            renew(adapter, "one", old)
        assert not release(adapter, "one", old).released
        assert renew(adapter, "one", new).token == new

    def test_a_permit_expires_alone(self, adapter: KeyValueStoreAdapter) -> None:
        """An expired permit is free at once, while the others of the semaphore stay."""
        acquire(adapter, "short", permits=2, ttl_seconds=SHORT_TTL_SECONDS)
        acquire(adapter, "long", permits=2)
        eventually(lambda: acquire(adapter, "next", permits=2).acquired)
        assert not acquire(adapter, "last", permits=2).acquired
        assert renew(adapter, "long").ttl_seconds > 50

    def test_a_replay_repeats_the_answer(self, adapter: KeyValueStoreAdapter) -> None:
        """The same operation id gives the same permit, or the same refusal, even after the permit was released."""
        first = acquire(adapter, "one", "first")
        refused = acquire(adapter, "two", "refused")
        release(adapter, "one", operation_id="release")
        again = acquire(adapter, "one", "first")
        assert (again.token, again.replayed) == (first.token, True)
        assert not acquire(adapter, "two", "refused").acquired
        assert not refused.acquired
        assert release(adapter, "one", operation_id="release").released
        assert acquire(adapter, "three").acquired
        with pytest.raises(IdempotencyConflictError):
            acquire(adapter, "other", "first")

    def test_an_atomic_batch_is_protected_by_a_renewal(self, adapter: KeyValueStoreAdapter) -> None:
        """A renewal first in a batch refuses the writes of a holder that lost its permit."""
        token = acquire(adapter, "one").token
        steps = [
            RenewPermitStep("renew_permit", "key", holder="one", token=token, ttl_seconds=60.0),
            Step("set", "result", value="written"),
        ]
        adapter.batch("namespace", steps)
        release(adapter, "one")
        acquire(adapter, "two")
        adapter.delete("namespace", "result")
        outcomes = adapter.batch("namespace", steps, atomic=False).results
        assert isinstance(outcomes[0], LeaseLostError)
        with pytest.raises(BatchRefusedError):
            adapter.batch("namespace", [*steps, Step("set", "other", value=1)])
        assert not adapter.get("namespace", "other").found

    @pytest.mark.parametrize("value", [1, None, [], {}, {"$permits": 1}, {"$permits": [1]}, {"$permits": [{}]}])
    def test_another_value_is_refused(self, adapter: KeyValueStoreAdapter, value: JSONValue) -> None:
        """A key that holds something else raises ``InvalidValueTypeError``, and keeps it."""
        adapter.set("namespace", "key", value)
        for change in (acquire, renew, release):
            with pytest.raises(InvalidValueTypeError):
                change(adapter, "one")
        assert adapter.get("namespace", "key").value == value

    def test_a_full_quota_refuses_a_permit_and_no_renewal_or_release(self, make_adapter: AdapterFactory) -> None:
        """A permit takes room like any value. A renewal does not grow, and a release shrinks."""
        adapter = make_adapter(namespace_quota_bytes=120)
        acquire(adapter, "one")
        adapter.set("namespace", "rest", "x" * (120 - ledger(adapter, "namespace")[0] - 2))
        with pytest.raises(NamespaceQuotaExceededError):
            acquire(adapter, "two", permits=2)
        renew(adapter, "one")
        assert release(adapter, "one").released

    def test_wrong_arguments_are_refused(self, adapter: KeyValueStoreAdapter) -> None:
        """A permit needs a holder and a TTL, and there are 1 to 1000 of them."""
        for wrong in (0, 1001, True, 1.5):
            with pytest.raises(InvalidRequestError):
                acquire(adapter, "one", permits=wrong)
        for holder in ("", " ", "x" * 256, "nul\x00", 7):
            with pytest.raises(InvalidRequestError):
                acquire(adapter, cast(str, holder))
        for ttl_seconds in (None, 0, -1, float("inf"), True):
            with pytest.raises(InvalidTTLError):
                acquire(adapter, "one", ttl_seconds=cast(float, ttl_seconds))
        assert acquire(adapter, "ein 'Halter'\n", ttl_seconds=1e300).acquired

    def test_concurrent_holders_never_exceed_the_permits(self, adapter: KeyValueStoreAdapter) -> None:
        """Any number of holders at the same moment get exactly as many permits as there are, with different tokens."""
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda number: acquire(adapter, f"holder-{number}", permits=3), range(24)))
        assert len({result.token for result in results if result.acquired}) == 3
        assert sum(result.acquired for result in results) == 3
