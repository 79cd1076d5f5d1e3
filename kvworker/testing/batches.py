"""Cases: a batch applies many operations of one namespace in order, in one transaction, under one operation id."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import (
    BatchRefusedError,
    GlobalQuotaExceededError,
    IdempotencyConflictError,
    InvalidValueTypeError,
    KVStoreError,
    NamespaceQuotaExceededError,
    VersionConflictError,
)
from kvworker.model import (
    BatchResult,
    ComputedResult,
    DeleteResult,
    GetResult,
    IncrementResult,
    SetResult,
    Step,
    StepResult,
    TouchResult,
)
from kvworker.testing.support import (
    SHORT_TTL_SECONDS,
    AdapterFactory,
    Cases,
    ledger,
    text_of,
    version_of,
    wait_for_expiry,
)


def _without_versions(batch: BatchResult) -> list[StepResult | KVStoreError]:
    return [
        result if isinstance(result, ComputedResult | DeleteResult | KVStoreError) else replace(result, version=None)
        for result in batch.results
    ]


def _lasting_fields(result: StepResult | KVStoreError) -> tuple[Any, ...]:
    """Return the type of a step's result and the fields that a replay repeats."""
    return type(result), *(getattr(result, name, None) for name in ("found", "value", "version", "deleted", "args"))


class BatchCases(Cases):
    """Batches."""

    def test_steps_are_applied_in_order(self, adapter: KeyValueStoreAdapter) -> None:
        """Each step sees the effects of the steps before it, and results come in the order of the steps."""
        adapter.set("namespace", "old", "gone soon")
        batch = adapter.batch(
            "namespace",
            [
                Step("get", "counter"),
                Step("increment", "counter", delta=5),
                Step("increment", "counter"),
                Step("get", "counter"),
                Step("set", "b", value={"x": ["\u00e9"]}, ttl_seconds=60),
                Step("persist", "b"),
                Step("get", "b"),
                Step("delete", "old"),
                Step("delete", "old"),
                Step("get", "old"),
                Step("touch", "counter", ttl_seconds=30),
            ],
        )
        assert _without_versions(batch) == [
            GetResult("namespace", "counter", found=False),
            IncrementResult("namespace", "counter", 5),
            IncrementResult("namespace", "counter", 6),
            GetResult("namespace", "counter", found=True, value=6),
            SetResult("namespace", "b", {"x": ["\u00e9"]}, 60),
            TouchResult("namespace", "b", found=True),
            GetResult("namespace", "b", found=True, value={"x": ["\u00e9"]}),
            DeleteResult("namespace", "old", deleted=True),
            DeleteResult("namespace", "old", deleted=False),
            GetResult("namespace", "old", found=False),
            TouchResult("namespace", "counter", found=True, ttl_seconds=30),
        ]
        assert not batch.replayed
        assert adapter.get("namespace", "counter").value == 6
        assert adapter.get("namespace", "b").version == getattr(batch.results[6], "version", None)
        assert not adapter.get("namespace", "old").found
        assert ledger(adapter, "namespace") == (1 + len('{"x":["\u00e9"]}'.encode()), 2)

    def test_an_atomic_batch_applies_all_or_nothing(self, adapter: KeyValueStoreAdapter) -> None:
        """A refused step raises ``BatchRefusedError`` with its index and error, and nothing is stored or recorded."""
        adapter.set("namespace", "text", "no counter")
        steps = [Step("set", "new", value=1), Step("delete", "text"), Step("set", "text", value="still none")]
        with pytest.raises(BatchRefusedError) as caught:
            adapter.batch("namespace", [*steps, Step("increment", "text")], operation_id="operation")
        assert caught.value.index == 3
        assert isinstance(caught.value.error, InvalidValueTypeError)
        assert caught.value.error.key == "text"
        assert not adapter.get("namespace", "new").found
        assert adapter.get("namespace", "text").value == "no counter"
        assert ledger(adapter, "namespace") == (12, 1)
        assert not adapter.was_applied("namespace", "operation")

    def test_steps_of_a_batch_that_is_not_atomic_are_refused_individually(self, adapter: KeyValueStoreAdapter) -> None:
        """Without ``atomic``, the result of a refused step is its error, and the other steps are applied."""
        adapter.set("namespace", "text", "no counter")
        batch = adapter.batch(
            "namespace",
            [
                Step("increment", "text"),
                Step("set", "a", value=1),
                Step("set", "a", value=2, if_absent=True),
                Step("increment", "a"),
            ],
            atomic=False,
        )
        refused, first, absent, second = batch.results
        assert isinstance(refused, InvalidValueTypeError)
        assert isinstance(first, SetResult)
        assert isinstance(absent, VersionConflictError)
        assert absent.actual_version == first.version
        assert isinstance(second, IncrementResult)
        assert second.value == 2
        assert adapter.get("namespace", "a").value == 2
        assert ledger(adapter, "namespace") == (13, 2)

    def test_conditions_hold_within_a_batch(self, adapter: KeyValueStoreAdapter) -> None:
        """A step's condition is checked against the entry as the earlier steps left it, not as the batch found it."""
        version = adapter.set("namespace", "key", 1).version
        batch = adapter.batch(
            "namespace",
            [
                Step("set", "key", value=2, expected_version=version),
                Step("set", "key", value=3, expected_version=version),
                Step("delete", "key", expected_version=version),
                Step("set", "other", value=1, if_absent=True),
            ],
            atomic=False,
        )
        assert [isinstance(result, VersionConflictError) for result in batch.results] == [False, True, True, False]
        assert adapter.get("namespace", "key").value == 2

    @pytest.mark.parametrize("atomic", [True, False])
    def test_a_batch_is_replayed_with_its_own_results(self, adapter: KeyValueStoreAdapter, *, atomic: bool) -> None:
        """A replayed batch returns what it returned the first time, errors included, even after a clear."""
        adapter.set("namespace", "text", "as it was")
        steps = [
            Step("set", "text", value="newer"),
            Step("increment", "counter", ttl_seconds=60),
            Step("delete", "missing"),
            *([] if atomic else [Step("increment", "text")]),
        ]
        first = adapter.batch("namespace", steps, atomic=atomic, operation_id="operation")
        adapter.clear("namespace")
        again = adapter.batch("namespace", steps, atomic=atomic, operation_id="operation")
        assert (first.replayed, again.replayed) == (False, True)
        assert list(map(_lasting_fields, again.results)) == list(map(_lasting_fields, first.results))
        assert isinstance(again.results[1], IncrementResult)
        assert 0 < (again.results[1].ttl_seconds or 0) <= 60.01
        assert not adapter.get("namespace", "text").found

    def test_a_replayed_batch_reads_again(self, adapter: KeyValueStoreAdapter) -> None:
        """A record keeps no values that a batch read, so a replay returns the values of now, and writes nothing."""
        adapter.set("namespace", "text", "before")
        steps = [Step("get", "text"), Step("increment", "counter"), Step("get", "missing")]
        first = adapter.batch("namespace", steps, operation_id="operation")
        adapter.set("namespace", "text", "after")
        again = adapter.batch("namespace", steps, operation_id="operation")
        assert [getattr(result, "value", None) for result in first.results] == ["before", 1, None]
        assert [getattr(result, "value", None) for result in again.results] == ["after", 1, None]
        assert again.replayed
        assert adapter.get("namespace", "counter").value == 1

    def test_other_steps_are_a_conflict(self, adapter: KeyValueStoreAdapter) -> None:
        """An id belongs to its steps, their order and ``atomic``; another use raises ``IdempotencyConflictError``."""
        adapter.batch("namespace", [Step("set", "a", value=1), Step("increment", "b")], operation_id="operation")
        others: list[tuple[list[Step], bool]] = [
            ([Step("increment", "b"), Step("set", "a", value=1)], True),
            ([Step("set", "a", value=1)], True),
            ([Step("set", "a", value=1), Step("increment", "b", delta=2)], True),
            ([Step("set", "a", value=1), Step("increment", "b")], False),
        ]
        for steps, atomic in others:
            with pytest.raises(IdempotencyConflictError):
                adapter.batch("namespace", steps, atomic=atomic, operation_id="operation")
        with pytest.raises(IdempotencyConflictError):
            adapter.set("namespace", "a", 1, operation_id="operation")

    def test_a_batch_that_only_reads_needs_no_record(self, adapter: KeyValueStoreAdapter) -> None:
        """A batch of gets finds only live entries, and its operation id is not recorded."""
        adapter.set("namespace", "a", {"x": 1}, ttl_seconds=60)
        adapter.set("namespace", "gone", 1, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "gone")
        steps = [Step("get", key) for key in ("missing", "a", "gone", "a")]
        batch = adapter.batch("namespace", steps, operation_id="operation")
        missing, found, gone, again = batch.results
        assert isinstance(found, GetResult)
        assert (found.value, found.version) == ({"x": 1}, version_of(adapter, "namespace", "a"))
        assert 0 < (found.ttl_seconds or 0) <= 60.01
        assert again == found
        assert [missing, gone] == [GetResult("namespace", key, found=False) for key in ("missing", "gone")]
        assert not adapter.was_applied("namespace", "operation")

    def test_the_growth_of_an_atomic_batch_as_a_whole_must_fit(self, make_adapter: AdapterFactory) -> None:
        """An atomic batch must fit by its net growth in bytes, so that a delete makes room for earlier steps too."""
        adapter = make_adapter(namespace_quota_bytes=100)
        adapter.set("namespace", "a", text_of(90))
        adapter.batch("namespace", [Step("set", "b", value=text_of(95)), Step("delete", "a")])
        assert ledger(adapter, "namespace") == (95, 1)
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            adapter.batch("namespace", [Step("set", "c", value=1234), Step("set", "d", value=12)])
        assert (caught.value.used_bytes, caught.value.requested_bytes) == (95, 6)
        assert ledger(adapter, "namespace") == (95, 1)
        assert not adapter.get("namespace", "c").found

    def test_each_step_of_a_batch_that_is_not_atomic_must_fit(self, make_adapter: AdapterFactory) -> None:
        """Without ``atomic``, each step must fit when it is its turn, so a delete makes room only for later steps."""
        adapter = make_adapter(namespace_quota_bytes=100, global_quota_bytes=150)
        adapter.set("other", "x", text_of(60))
        batch = adapter.batch(
            "namespace",
            [
                Step("set", "a", value=text_of(50)),
                Step("set", "b", value=text_of(51)),
                Step("set", "b", value=text_of(41)),
                Step("set", "b", value=text_of(40)),
                Step("increment", "c"),
                Step("delete", "a"),
                Step("increment", "c"),
            ],
            atomic=False,
        )
        errors = [type(result) for result in batch.results if isinstance(result, Exception)]
        assert errors == [NamespaceQuotaExceededError, GlobalQuotaExceededError, GlobalQuotaExceededError]
        refused = batch.results[1]
        assert isinstance(refused, NamespaceQuotaExceededError)
        assert (refused.quota_bytes, refused.used_bytes, refused.requested_bytes) == (100, 50, 51)
        assert ledger(adapter, "namespace") == (41, 2)
        assert adapter.recompute_ledgers().drifts == ()

    @pytest.mark.parametrize("atomic", [True, False])
    def test_expired_entries_never_cause_a_batch_to_be_refused(
        self, make_adapter: AdapterFactory, *, atomic: bool
    ) -> None:
        """Expired entries of any namespace free their bytes for a batch that would exceed a quota."""
        adapter = make_adapter(namespace_quota_bytes=100, global_quota_bytes=100)
        adapter.set("namespace", "old", text_of(40), ttl_seconds=SHORT_TTL_SECONDS)
        adapter.set("other", "old", text_of(60), ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "old")
        wait_for_expiry(adapter, "other", "old")
        batch = adapter.batch("namespace", [Step("set", "new", value=text_of(100))], atomic=atomic)
        assert isinstance(batch.results[0], SetResult)
        assert ledger(adapter, "namespace") == (100, 1)

    def test_a_replayed_error_is_complete(self, adapter: KeyValueStoreAdapter) -> None:
        """A replayed step's error has the type, text and fields of the first one."""
        adapter.set("namespace", "key", "text")
        steps = [Step("increment", "key"), Step("set", "key", value=1, if_absent=True)]
        first = adapter.batch("namespace", steps, atomic=False, operation_id="operation")
        again = adapter.batch("namespace", steps, atomic=False, operation_id="operation")
        for one, other in zip(first.results, again.results, strict=True):
            assert isinstance(one, InvalidValueTypeError | VersionConflictError)
            assert isinstance(other, type(one))
            assert one.args == other.args
            assert other.key == "key"

    def test_batches_of_several_threads_do_not_interleave(self, adapter: KeyValueStoreAdapter) -> None:
        """Concurrent batches of the same keys neither deadlock nor see each other's unfinished work."""
        keys = ["a", "b", "c", "d"]

        def add(number: int) -> BatchResult:
            # In another order each time: the batches must not deadlock.
            order = keys[number // 2 % 4 :] + keys[: number // 2 % 4]
            steps = [Step("increment", key) for key in order]
            return adapter.batch("namespace", steps, operation_id=f"operation {number // 2}")

        with ThreadPoolExecutor(4) as threads:
            batches = list(threads.map(add, range(80)))
        assert {adapter.get("namespace", key).value for key in keys} == {40}
        assert sum(batch.replayed for batch in batches) == 40
        for batch in batches:
            assert len({getattr(result, "value", None) for result in batch.results}) == 1
        assert adapter.recompute_ledgers().drifts == ()
