"""Cases: a rate limit admits exactly what it should, by the database's clock."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import IdempotencyConflictError, InvalidRequestError, InvalidValueTypeError
from kvworker.model import JSONValue, RateLimitResult, RateLimitStep
from kvworker.testing.support import Cases, eventually, ledger, version_of, wait_for_expiry


def take(
    adapter: KeyValueStoreAdapter,
    limit: int = 3,
    per_seconds: float = 3600,
    operation_id: str | None = None,
    **more: Any,
) -> RateLimitResult:
    """Take from the test's limit."""
    step = RateLimitStep("rate_limit", "key", limit=limit, per_seconds=per_seconds, **more)
    return cast(RateLimitResult, adapter.apply_step("namespace", step, operation_id))


class RateLimitCases(Cases):
    """Rate limits."""

    def test_the_burst_is_allowed_and_then_refused(self, adapter: KeyValueStoreAdapter) -> None:
        """Exactly ``limit`` calls pass at once. The next is told when to come again, and changes nothing."""
        assert [take(adapter).remaining for _ in range(3)] == [2, 1, 0]
        version = version_of(adapter, "namespace", "key")
        refused = take(adapter)
        assert (refused.allowed, refused.remaining) == (False, 0)
        assert 1190 < refused.retry_after_seconds <= 1200.1
        assert 3590 < refused.full_after_seconds <= 3600.1
        assert version_of(adapter, "namespace", "key") == version

    def test_burst_and_quantity(self, adapter: KeyValueStoreAdapter) -> None:
        """``burst`` bounds what is taken at once, ``quantity`` takes several, and a large one waits for longer."""
        assert take(adapter, burst=10, quantity=7).remaining == 3
        refused = take(adapter, burst=10, quantity=4)
        assert (refused.allowed, refused.remaining) == (False, 3)
        assert 1190 < refused.retry_after_seconds <= 1200.1
        assert take(adapter, burst=10, quantity=3).allowed
        assert take(adapter, burst=10, quantity=10).retry_after_seconds == pytest.approx(12_000, abs=10)

    def test_what_was_taken_comes_back(self, adapter: KeyValueStoreAdapter) -> None:
        """One unit comes back after another. Once all are back, the entry has expired, and takes no room."""
        assert take(adapter, 10, 1.0, burst=2, quantity=2).allowed
        eventually(lambda: take(adapter, 10, 1.0, burst=2).allowed)
        wait_for_expiry(adapter, "namespace", "key")
        adapter.sweep_expired()
        assert ledger(adapter, "namespace") == (0, 0)
        assert take(adapter, 10, 1.0, burst=2).remaining == 1

    def test_a_replay_takes_nothing(self, adapter: KeyValueStoreAdapter) -> None:
        """The same operation id repeats its answer, a refusal too, even when there would be room by now."""
        assert take(adapter, operation_id="first").remaining == 2
        again = take(adapter, operation_id="first")
        assert (again.allowed, again.remaining, again.replayed) == (True, 2, True)
        assert take(adapter, quantity=2).remaining == 0
        assert not take(adapter, operation_id="refused").allowed
        adapter.delete("namespace", "key")
        repeated = take(adapter, operation_id="refused")
        assert (repeated.allowed, repeated.replayed) == (False, True)
        assert take(adapter).remaining == 2
        with pytest.raises(IdempotencyConflictError):
            take(adapter, quantity=2, operation_id="first")

    def test_a_changed_limit_counts_from_what_it_allows(self, adapter: KeyValueStoreAdapter) -> None:
        """A limit with other numbers never makes callers wait for longer than it could itself."""
        assert not [take(adapter, 1, 1_000_000).allowed for _ in range(2)][1]
        assert take(adapter, 1, 10.0).retry_after_seconds <= 10

    def test_every_call_counts_and_is_recorded(self, adapter: KeyValueStoreAdapter) -> None:
        """Many calls in a row take one after the other, refused ones nothing, and the store stays consistent."""
        answers = [take(adapter, 50) for _ in range(80)]
        assert [answer.remaining for answer in answers] == [*reversed(range(50)), *[0] * 30]
        assert [answer.allowed for answer in answers] == [True] * 50 + [False] * 30
        report = adapter.verify()
        assert report is None or not report.problems
        adapter.delete("namespace", "key")
        assert ledger(adapter, "namespace") == (0, 0)

    @pytest.mark.parametrize("value", [1, None, [], {}, {"$full_at": "1"}, {"$full_at": True}, {"$permits": []}])
    def test_another_value_is_refused(self, adapter: KeyValueStoreAdapter, value: JSONValue) -> None:
        """A key that holds something else raises ``InvalidValueTypeError``, and keeps it."""
        adapter.set("namespace", "key", value)
        with pytest.raises(InvalidValueTypeError):
            take(adapter)
        assert adapter.get("namespace", "key").value == value

    @pytest.mark.parametrize(
        "wrong",
        [
            {"limit": 0},
            {"limit": 2**31},
            {"limit": True},
            {"limit": 1.5},
            {"per_seconds": 0},
            {"per_seconds": float("inf")},
            {"per_seconds": "1"},
            {"burst": 0},
            {"quantity": 0},
            {"quantity": 4},
            {"burst": 2, "quantity": 3},
            {"limit": 1_000_001, "per_seconds": 1},
            {"limit": 1, "per_seconds": 1e10},
        ],
    )
    def test_wrong_arguments_are_refused(self, adapter: KeyValueStoreAdapter, wrong: dict[str, Any]) -> None:
        """Numbers that are none, and a quantity that could never be allowed, raise ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError):
            take(adapter, **wrong)
        assert not adapter.get("namespace", "key").found

    def test_concurrent_callers_never_get_more(self, adapter: KeyValueStoreAdapter) -> None:
        """By the database's clock, never more is admitted than ``burst`` and what comes back meanwhile."""
        began = time.monotonic()
        with ThreadPoolExecutor(8) as threads:
            results = list(threads.map(lambda _: take(adapter, 20, 1.0, burst=5), range(120)))
        seconds = time.monotonic() - began
        admitted = sum(result.allowed for result in results)
        assert 5 <= admitted <= 5 + 20 * seconds
