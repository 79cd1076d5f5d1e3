"""Cases: at most one caller holds a durable step, its clock is the database's, and its end always fits."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import (
    IdempotencyConflictError,
    InvalidValueTypeError,
    NamespaceQuotaExceededError,
    StepConflictError,
    StepLostError,
)
from kvworker.model import StepBegin, StepBeginResult, StepFinish, StepFinishResult, StepRenew, StepRenewResult
from kvworker.testing.support import SHORT_TTL_SECONDS, AdapterFactory, Cases, ledger, wait_for_expiry


def _begin(adapter: KeyValueStoreAdapter, operation_id: str | None = None, **options: Any) -> StepBeginResult:
    step = StepBegin("step_begin", "key", **{"holder": "holder", "arguments": [1], **options})
    return cast(StepBeginResult, adapter.apply_step("namespace", step, operation_id))


def _renew(adapter: KeyValueStoreAdapter, token: int, lease_seconds: float = 60) -> StepRenewResult:
    step = StepRenew("step_renew", "key", token=token, lease_seconds=lease_seconds)
    return cast(StepRenewResult, adapter.apply_step("namespace", step, None))


def _finish(
    adapter: KeyValueStoreAdapter, token: int, state: str = "done", operation_id: str | None = None, **options: Any
) -> StepFinishResult:
    step = StepFinish("step_finish", "key", token=token, state=state, **options)
    return cast(StepFinishResult, adapter.apply_step("namespace", step, operation_id))


def _unknown(adapter: KeyValueStoreAdapter) -> int:
    """Reserve the step with a lease that is over, and return its token."""
    token = _begin(adapter, lease_seconds=SHORT_TTL_SECONDS).token
    assert token is not None
    adapter.set("namespace", "clock", 1, ttl_seconds=SHORT_TTL_SECONDS)
    wait_for_expiry(adapter, "namespace", "clock")
    return token


class DurableStepCases(Cases):
    """Reserved, renewed, taken over, and ended."""

    def test_one_caller_holds_a_step_until_it_has_ended(self, adapter: KeyValueStoreAdapter) -> None:
        """Every other caller is told the state, and the recorded value afterwards."""
        held = _begin(adapter)
        assert (held.state, held.holder, held.replayed) == ("reserved", "holder", False)
        assert held.token is not None
        other = _begin(adapter, holder="other")
        assert (other.state, other.token, other.holder) == ("in_progress", held.token, "holder")
        with pytest.raises(StepConflictError):
            _begin(adapter, arguments=[2])
        assert _renew(adapter, held.token).token == held.token
        assert _finish(adapter, held.token, value={"a": [1]}, ttl_seconds=60).state == "done"
        assert _finish(adapter, held.token, value={"a": [1]}, ttl_seconds=60).state == "done"
        ended = _begin(adapter)
        assert (ended.state, ended.value) == ("done", {"a": [1]})
        remaining = adapter.get("namespace", "key").ttl_seconds
        assert remaining is not None
        assert 0 < remaining <= 60

    def test_only_one_of_many_callers_reserves_a_step(self, adapter: KeyValueStoreAdapter) -> None:
        """However many begin at the same moment, one of them holds the step."""
        with ThreadPoolExecutor(8) as pool:
            states = [result.state for result in pool.map(lambda _: _begin(adapter), range(16))]
        assert sorted(states) == ["in_progress"] * 15 + ["reserved"]

    def test_one_of_many_takes_over_and_the_late_holder_is_refused(self, adapter: KeyValueStoreAdapter) -> None:
        """A takeover compares the token, which grows. The late outcome of the first holder is refused."""
        token = _unknown(adapter)
        assert _begin(adapter).state == "unknown"
        with ThreadPoolExecutor(4) as pool:
            taken = list(pool.map(lambda _: _begin(adapter, takeover_token=token), range(4)))
        winners = [result.token for result in taken if result.state == "reserved"]
        assert len(winners) == 1
        assert winners[0] is not None
        assert winners[0] > token
        for late in (lambda: _renew(adapter, token), lambda: _finish(adapter, token, value=1)):
            with pytest.raises(StepLostError):
                late()
        assert _finish(adapter, winners[0], value=2).state == "done"
        assert _begin(adapter).value == 2

    def test_the_holder_may_come_back_before_a_takeover(self, adapter: KeyValueStoreAdapter) -> None:
        """A renewal after the lease makes the step known again, and whoever was told unknown cannot take it over."""
        token = _unknown(adapter)
        _renew(adapter, token)
        assert _begin(adapter, takeover_token=token).state == "in_progress"
        assert _finish(adapter, token, value=1).state == "done"

    def test_tokens_grow_after_a_release_and_a_deletion(self, adapter: KeyValueStoreAdapter) -> None:
        """A token never comes back, so that an old holder is refused whatever happened in between."""
        tokens = []
        for number in range(6):
            token = _begin(adapter).token
            assert token is not None
            tokens.append(token)
            if number % 2:
                assert _finish(adapter, token, "released").state == "released"
            else:
                adapter.delete("namespace", "key")
        assert tokens == sorted(set(tokens))
        last = _begin(adapter).token
        assert last is not None
        assert last > tokens[-1]
        with pytest.raises(StepLostError):
            _finish(adapter, tokens[-1], value=1)

    def test_a_repetition_gives_the_same_answer(self, adapter: KeyValueStoreAdapter) -> None:
        """A begin and a finish whose answers were lost are repeated with their operation ids."""
        first, again = _begin(adapter, "begin"), _begin(adapter, "begin")
        assert (again.state, again.token, again.replayed) == ("reserved", first.token, True)
        assert first.token is not None
        _finish(adapter, first.token, operation_id="finish", value=1)
        assert _finish(adapter, first.token, operation_id="finish", value=1).replayed
        with pytest.raises(IdempotencyConflictError):
            _finish(adapter, first.token, operation_id="finish", value=2)
        found, replayed = _begin(adapter, "found"), _begin(adapter, "found")
        assert (found.value, found.has_value) == (1, True)
        assert (replayed.state, replayed.value, replayed.has_value) == ("done", None, False)

    def test_the_end_of_an_effect_fits_into_a_full_quota(self, make_adapter: AdapterFactory) -> None:
        """A value that does not fit changes nothing. The end without the value always fits."""
        adapter = make_adapter(namespace_quota_bytes=400)
        token = _begin(adapter).token
        assert token is not None
        used, _ = ledger(adapter, "namespace")
        adapter.set("namespace", "filler", "x" * (400 - used - 2))
        with pytest.raises(NamespaceQuotaExceededError):
            _finish(adapter, token, value="x" * 400)
        assert _begin(adapter).state == "in_progress"
        _finish(adapter, token, unrecorded="quota")
        ended = _begin(adapter)
        assert (ended.state, ended.unrecorded, ended.has_value) == ("done", "quota", False)

    def test_a_step_ends_and_another_begins_in_one_batch(self, adapter: KeyValueStoreAdapter) -> None:
        """A batch of both is applied as a whole or not at all."""
        first = _begin(adapter)
        assert first.token is not None
        steps = [
            StepFinish("step_finish", "key", token=first.token, state="done", value=1),
            StepBegin("step_begin", "next", holder="holder"),
        ]
        ended, begun = adapter.batch("namespace", steps, operation_id="both").results
        assert isinstance(ended, StepFinishResult)
        assert isinstance(begun, StepBeginResult)
        assert (ended.state, begun.state) == ("done", "reserved")
        again = adapter.batch("namespace", steps, operation_id="both")
        assert again.replayed
        assert again.results[1].token == begun.token  # type: ignore[union-attr]

    def test_another_value_is_no_step(self, adapter: KeyValueStoreAdapter) -> None:
        """An entry that something else wrote is left alone."""
        adapter.set("namespace", "key", {"value": 1})
        for call in (lambda: _begin(adapter), lambda: _renew(adapter, 1), lambda: _finish(adapter, 1)):
            with pytest.raises(InvalidValueTypeError, match="a durable step"):
                call()
        assert adapter.get("namespace", "key").value == {"value": 1}
