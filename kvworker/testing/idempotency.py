"""Cases: an operation id is applied once, and gives the same result every time."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import CounterOverflowError, IdempotencyConflictError
from kvworker.model import INT64_MAX
from kvworker.testing.support import SHORT_TTL_SECONDS, AdapterFactory, Cases, ledger, wait_for_expiry

_OTHER_ARGUMENTS: list[Callable[[KeyValueStoreAdapter], Any]] = [
    lambda adapter: adapter.set("namespace", "other", 1, ttl_seconds=60, operation_id="operation"),
    lambda adapter: adapter.set("namespace", "key", 2, ttl_seconds=60, operation_id="operation"),
    lambda adapter: adapter.set("namespace", "key", value=True, ttl_seconds=60, operation_id="operation"),
    lambda adapter: adapter.set("namespace", "key", 1.0, ttl_seconds=60, operation_id="operation"),
    lambda adapter: adapter.set("namespace", "key", 1, ttl_seconds=61, operation_id="operation"),
    lambda adapter: adapter.set("namespace", "key", 1, operation_id="operation"),
    lambda adapter: adapter.delete("namespace", "key", operation_id="operation"),
    lambda adapter: adapter.increment("namespace", "key", ttl_seconds=60, operation_id="operation"),
]


class IdempotencyCases(Cases):
    """Operation ids."""

    def test_a_set_is_replayed(self, adapter: KeyValueStoreAdapter) -> None:
        """A replayed set returns the value that it stored and leaves a newer value in place."""
        first = adapter.set("namespace", "key", {"a": [1]}, operation_id="operation")
        adapter.set("namespace", "key", "newer")
        again = adapter.set("namespace", "key", {"a": [1]}, operation_id="operation")
        assert (first.replayed, again.replayed) == (False, True)
        assert (again.value, again.ttl_seconds) == ({"a": [1]}, None)
        assert adapter.get("namespace", "key").value == "newer"

    def test_a_replayed_set_returns_the_remaining_ttl(self, adapter: KeyValueStoreAdapter) -> None:
        """A replayed result gives the seconds that remain at the time of the replay, not those of the first write."""
        adapter.set("namespace", "key", 1, ttl_seconds=60, operation_id="operation")
        remaining = adapter.set("namespace", "key", 1, ttl_seconds=60, operation_id="operation").ttl_seconds
        assert remaining is not None
        assert 0 < remaining <= 60.01

    def test_a_replay_outlives_the_entry(self, adapter: KeyValueStoreAdapter) -> None:
        """The write of an expired entry is replayed with 0.0 seconds left, and the entry stays expired."""
        adapter.set("namespace", "key", 1, ttl_seconds=SHORT_TTL_SECONDS, operation_id="operation")
        wait_for_expiry(adapter, "namespace", "key")
        again = adapter.set("namespace", "key", 1, ttl_seconds=SHORT_TTL_SECONDS, operation_id="operation")
        assert (again.replayed, again.ttl_seconds) == (True, 0.0)
        assert not adapter.get("namespace", "key").found

    def test_an_increment_is_replayed_with_its_own_value(self, adapter: KeyValueStoreAdapter) -> None:
        """A replayed increment returns its own sum, not the counter's present value, and adds nothing."""
        first = adapter.increment("namespace", "key", delta=5, operation_id="operation")
        adapter.increment("namespace", "key", delta=100)
        again = adapter.increment("namespace", "key", delta=5, operation_id="operation")
        assert (first.value, again.value, again.replayed) == (5, 5, True)
        assert adapter.get("namespace", "key").value == 105

    def test_a_replay_succeeds_even_if_a_new_write_would_be_refused(self, adapter: KeyValueStoreAdapter) -> None:
        """A replay does not look at the entry, so a value that could not be incremented now does not matter."""
        adapter.increment("namespace", "key", operation_id="operation")
        adapter.set("namespace", "key", INT64_MAX)
        assert adapter.increment("namespace", "key", operation_id="operation").value == 1
        adapter.set("namespace", "key", "no counter")
        assert adapter.increment("namespace", "key", operation_id="operation").replayed

    @pytest.mark.parametrize("exists", [True, False])
    def test_a_delete_is_replayed(self, adapter: KeyValueStoreAdapter, *, exists: bool) -> None:
        """A replayed delete repeats whether it deleted an entry, and leaves an entry that was written since."""
        if exists:
            adapter.set("namespace", "key", 1)
        first = adapter.delete("namespace", "key", operation_id="operation")
        adapter.set("namespace", "key", 2)
        again = adapter.delete("namespace", "key", operation_id="operation")
        assert (first.deleted, first.replayed) == (exists, False)
        assert (again.deleted, again.replayed) == (exists, True)
        assert adapter.get("namespace", "key").value == 2

    @pytest.mark.parametrize("call", _OTHER_ARGUMENTS)
    def test_other_arguments_are_a_conflict(
        self, adapter: KeyValueStoreAdapter, call: Callable[[KeyValueStoreAdapter], Any]
    ) -> None:
        """An id used with another key, value, TTL or method raises ``IdempotencyConflictError`` and changes nothing."""
        adapter.set("namespace", "key", 1, ttl_seconds=60, operation_id="operation")
        with pytest.raises(IdempotencyConflictError) as caught:
            call(adapter)
        assert (caught.value.namespace, caught.value.operation_id) == ("namespace", "operation")
        assert adapter.get("namespace", "key").value == 1
        assert ledger(adapter, "namespace") == (1, 1)

    @pytest.mark.parametrize(("delta", "initial_value"), [(2, 0), (1, 1), (2, -1)])
    def test_other_increments_are_a_conflict(
        self, adapter: KeyValueStoreAdapter, delta: int, initial_value: int
    ) -> None:
        """The delta and the initial value are part of an increment's identity."""
        adapter.increment("namespace", "key", operation_id="operation")
        with pytest.raises(IdempotencyConflictError):
            adapter.increment("namespace", "key", delta=delta, initial_value=initial_value, operation_id="operation")

    def test_equal_ttls_of_other_types_are_not_a_conflict(self, adapter: KeyValueStoreAdapter) -> None:
        """60 and 60.0 seconds are the same TTL."""
        adapter.set("namespace", "key", 1, ttl_seconds=60, operation_id="operation")
        assert adapter.set("namespace", "key", 1, ttl_seconds=60.0, operation_id="operation").replayed

    def test_an_operation_id_belongs_to_its_namespace(self, adapter: KeyValueStoreAdapter) -> None:
        """The same id in two namespaces names two operations, and both are applied."""
        assert not adapter.set("one", "key", 1, operation_id="operation").replayed
        assert not adapter.set("two", "key", 2, operation_id="operation").replayed

    def test_without_an_id_every_write_is_new(self, adapter: KeyValueStoreAdapter) -> None:
        """A write without an id is applied every time."""
        assert [adapter.increment("namespace", "key").value for _ in range(3)] == [1, 2, 3]

    def test_another_adapter_replays_too(self, make_adapter: AdapterFactory) -> None:
        """Records are in the store, so another adapter of the same store replays an operation."""
        make_adapter().increment("namespace", "key", operation_id="operation")
        assert make_adapter().increment("namespace", "key", operation_id="operation").replayed

    def test_a_failed_write_records_nothing(self, adapter: KeyValueStoreAdapter) -> None:
        """A write that raised does not use up its operation id, and is applied when it is sent again."""
        adapter.set("namespace", "key", INT64_MAX)
        with pytest.raises(CounterOverflowError):
            adapter.increment("namespace", "key", operation_id="operation")
        adapter.set("namespace", "key", 1)
        result = adapter.increment("namespace", "key", operation_id="operation")
        assert (result.value, result.replayed) == (2, False)

    def test_an_applied_operation_is_known(self, adapter: KeyValueStoreAdapter) -> None:
        """``was_applied`` is true only for an id that was applied in that namespace, even if it changed no entry."""
        assert not adapter.was_applied("namespace", "operation")
        adapter.delete("namespace", "key", operation_id="operation")
        assert adapter.was_applied("namespace", "operation")
        assert not adapter.was_applied("another", "operation")

    def test_an_id_used_by_several_threads_at_once_is_applied_once(self, adapter: KeyValueStoreAdapter) -> None:
        """When several threads send one id at once, one call is applied, and the others replay its result."""

        def call(round_number: int) -> tuple[int, bool]:
            result = adapter.increment("namespace", "key", operation_id=f"operation {round_number // 4}")
            return result.value, result.replayed

        with ThreadPoolExecutor(4) as threads:
            results = list(threads.map(call, range(80)))
        assert sorted(value for value, replayed in results if not replayed) == list(range(1, 21))
        assert sum(replayed for _, replayed in results) == 60
        for start in range(0, 80, 4):
            assert len({value for value, _ in results[start : start + 4]}) == 1
