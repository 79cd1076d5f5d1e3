"""Cases: counters are exact signed 64-bit integers."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import CounterOverflowError, InvalidRequestError, InvalidValueTypeError
from kvworker.model import INT64_MAX, INT64_MIN, JSONValue
from kvworker.testing.support import Cases, ledger


class IncrementCases(Cases):
    """Counters."""

    def test_a_missing_counter_is_created(self, adapter: KeyValueStoreAdapter) -> None:
        """A missing counter gets the sum of ``initial_value``, 0 by default, and ``delta``, 1 by default."""
        assert adapter.increment("namespace", "key").value == 1
        assert adapter.increment("namespace", "other", delta=-3, initial_value=10).value == 7
        assert adapter.get("namespace", "other").value == 7

    def test_an_initial_value_is_only_for_a_missing_counter(self, adapter: KeyValueStoreAdapter) -> None:
        """``initial_value`` is ignored if the entry exists."""
        adapter.set("namespace", "key", 5)
        assert adapter.increment("namespace", "key", delta=2, initial_value=100).value == 7

    @pytest.mark.parametrize(("start", "delta", "total"), [(9, 1, 10), (10, -1, 9), (0, -1, -1), (-1, 1, 0), (3, 0, 3)])
    def test_the_ledger_follows_the_digits(
        self, adapter: KeyValueStoreAdapter, start: int, delta: int, total: int
    ) -> None:
        """A counter uses as many bytes as its decimal text, sign included, so the ledger changes with its digits."""
        adapter.set("namespace", "key", start)
        assert adapter.increment("namespace", "key", delta=delta).value == total
        assert adapter.get("namespace", "key").value == total
        assert ledger(adapter, "namespace") == (len(str(total)), 1)

    @pytest.mark.parametrize("value", [True, False, None, 1.0, -0.0, 1e16, "1", "", [], [1], {}])
    def test_a_value_that_is_not_an_integer_is_refused(self, adapter: KeyValueStoreAdapter, value: JSONValue) -> None:
        """Any value but a JSON integer, even 1.0 or true, raises ``InvalidValueTypeError`` and stays."""
        adapter.set("namespace", "key", value)
        with pytest.raises(InvalidValueTypeError) as caught:
            adapter.increment("namespace", "key", operation_id="refused")
        assert (caught.value.namespace, caught.value.key) == ("namespace", "key")
        assert adapter.get("namespace", "key").value == value
        adapter.set("namespace", "key", 1)
        assert adapter.increment("namespace", "key", operation_id="refused").value == 2

    @pytest.mark.parametrize(
        ("start", "delta"), [(INT64_MAX, 1), (INT64_MIN, -1), (1, INT64_MAX), (-2, INT64_MIN), (2**63, 0), (2**70, -1)]
    )
    def test_a_sum_outside_64_bits_is_refused(self, adapter: KeyValueStoreAdapter, start: int, delta: int) -> None:
        """If the old value or the sum does not fit 64 bits, ``CounterOverflowError`` is raised and the value stays."""
        adapter.set("namespace", "key", start)
        with pytest.raises(CounterOverflowError):
            adapter.increment("namespace", "key", delta=delta)
        assert adapter.get("namespace", "key").value == start

    @pytest.mark.parametrize(("initial_value", "delta"), [(INT64_MAX, 1), (INT64_MIN, -1)])
    def test_a_first_value_outside_64_bits_is_refused(
        self, adapter: KeyValueStoreAdapter, initial_value: int, delta: int
    ) -> None:
        """A new counter that would not fit 64 bits raises ``CounterOverflowError`` and is not created."""
        with pytest.raises(CounterOverflowError):
            adapter.increment("namespace", "key", initial_value=initial_value, delta=delta)
        assert not adapter.get("namespace", "key").found
        assert ledger(adapter, "namespace") == (0, 0)
        adapter.set("namespace", "key", 0)
        assert adapter.increment("namespace", "key", initial_value=initial_value, delta=delta).value == delta

    def test_the_whole_range_is_usable(self, adapter: KeyValueStoreAdapter) -> None:
        """Counters are exact from -2**63 to 2**63 - 1, where a float would be rounded."""
        assert adapter.increment("namespace", "key", delta=INT64_MAX).value == INT64_MAX
        assert adapter.increment("namespace", "key", delta=INT64_MIN).value == -1
        assert adapter.increment("namespace", "key", delta=INT64_MIN + 1).value == INT64_MIN

    @pytest.mark.parametrize("bad", [True, 1.0, "1", None, 2**63, -(2**63) - 1])
    def test_bad_deltas_and_initial_values_are_refused(self, adapter: KeyValueStoreAdapter, bad: Any) -> None:
        """``delta`` and ``initial_value`` must be 64-bit ``int``; other types raise ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError):
            adapter.increment("namespace", "key", delta=bad)
        with pytest.raises(InvalidRequestError):
            adapter.increment("namespace", "key", initial_value=bad)
        assert not adapter.get("namespace", "key").found

    def test_concurrent_increments_lose_nothing(self, adapter: KeyValueStoreAdapter) -> None:
        """Each concurrent increment returns a different sum, and none is lost."""
        with ThreadPoolExecutor(4) as threads:
            values = list(threads.map(lambda _: adapter.increment("namespace", "key").value, range(80)))
        assert sorted(values) == list(range(1, 81))
