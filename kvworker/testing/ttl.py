"""Cases: entries expire by the store's clock, and an expired entry is invisible at once."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

import math
from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import InvalidTTLError
from kvworker.testing.support import SHORT_TTL_SECONDS, Cases, ledger, wait_for_expiry


class TTLCases(Cases):
    """TTLs."""

    @pytest.mark.parametrize("ttl_seconds", [0, -1, -0.5, True, False, math.nan, math.inf, "5", [1]])
    def test_bad_ttls_are_refused_and_change_nothing(self, adapter: KeyValueStoreAdapter, ttl_seconds: Any) -> None:
        """``set`` and ``increment`` raise ``InvalidTTLError`` unless the TTL is a positive finite number of seconds."""
        with pytest.raises(InvalidTTLError):
            adapter.set("namespace", "key", 1, ttl_seconds=ttl_seconds)
        with pytest.raises(InvalidTTLError):
            adapter.increment("namespace", "key", ttl_seconds=ttl_seconds)
        assert not adapter.get("namespace", "key").found

    @pytest.mark.parametrize("ttl_seconds", [1, 60, 0.5, 1e9, 1e15])
    def test_get_returns_the_remaining_seconds(self, adapter: KeyValueStoreAdapter, ttl_seconds: float) -> None:
        """Results give the seconds that are left by the store's clock, at most those of the write."""
        given = adapter.set("namespace", "key", 1, ttl_seconds=ttl_seconds).ttl_seconds
        remaining = adapter.get("namespace", "key").ttl_seconds
        assert given is not None
        assert remaining is not None
        assert given <= ttl_seconds
        # Clocks that count milliseconds round.
        assert 0 < remaining <= given + 0.01

    def test_without_a_ttl_results_have_none(self, adapter: KeyValueStoreAdapter) -> None:
        """An entry written without a TTL never expires, and results have None for it."""
        assert adapter.set("namespace", "key", 1).ttl_seconds is None
        assert adapter.get("namespace", "key").ttl_seconds is None
        assert adapter.increment("namespace", "key").ttl_seconds is None

    def test_an_expired_entry_is_invisible_to_get(self, adapter: KeyValueStoreAdapter) -> None:
        """``get`` does not find an expired entry, whether it was swept or not."""
        adapter.set("namespace", "key", 1, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "key")
        assert adapter.get("namespace", "key").to_dict() == {"namespace": "namespace", "key": "key", "found": False}

    def test_an_expired_entry_is_invisible_to_delete(self, adapter: KeyValueStoreAdapter) -> None:
        """``delete`` of an expired entry returns False and frees its bytes."""
        adapter.set("namespace", "key", 1, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "key")
        assert adapter.delete("namespace", "key").deleted is False
        assert ledger(adapter, "namespace") == (0, 0)

    def test_an_expired_counter_starts_over_without_a_ttl(self, adapter: KeyValueStoreAdapter) -> None:
        """An increment of an expired counter starts from ``initial_value``, and the old TTL is gone."""
        adapter.set("namespace", "key", 41, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "key")
        result = adapter.increment("namespace", "key", delta=2, initial_value=5)
        assert (result.value, result.ttl_seconds) == (7, None)

    def test_an_expired_entry_of_any_type_starts_a_counter(self, adapter: KeyValueStoreAdapter) -> None:
        """The type of an expired value does not matter to an increment."""
        adapter.set("namespace", "key", "not a counter", ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "key")
        assert adapter.increment("namespace", "key").value == 1
        assert ledger(adapter, "namespace") == (1, 1)

    def test_an_expired_entry_can_be_set_again(self, adapter: KeyValueStoreAdapter) -> None:
        """``set`` replaces an expired entry, and the ledger counts only the new one."""
        adapter.set("namespace", "key", "first", ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "key")
        adapter.set("namespace", "key", "second")
        assert adapter.get("namespace", "key").value == "second"
        assert ledger(adapter, "namespace") == (8, 1)

    def test_set_without_a_ttl_clears_an_old_one(self, adapter: KeyValueStoreAdapter) -> None:
        """``set`` without a TTL removes the expiry that the entry had."""
        adapter.set("namespace", "key", 1, ttl_seconds=60)
        assert adapter.set("namespace", "key", 1).ttl_seconds is None
        assert adapter.get("namespace", "key").ttl_seconds is None

    def test_increment_without_a_ttl_keeps_it(self, adapter: KeyValueStoreAdapter) -> None:
        """An increment keeps the counter's expiry and returns the seconds that are left."""
        adapter.set("namespace", "key", 1, ttl_seconds=60)
        result = adapter.increment("namespace", "key")
        assert result.ttl_seconds is not None
        assert 0 < result.ttl_seconds <= 60.01
        remaining = adapter.get("namespace", "key").ttl_seconds
        assert remaining is not None
        assert 0 < remaining <= 60.01

    def test_increment_with_a_ttl_replaces_it(self, adapter: KeyValueStoreAdapter) -> None:
        """An increment with a TTL replaces the expiry of an existing counter."""
        adapter.set("namespace", "key", 1, ttl_seconds=60)
        assert adapter.increment("namespace", "key", ttl_seconds=600).ttl_seconds == 600
        remaining = adapter.get("namespace", "key").ttl_seconds
        assert remaining is not None
        assert remaining > 60

    def test_a_counter_created_with_a_ttl_expires(self, adapter: KeyValueStoreAdapter) -> None:
        """The TTL of an increment also applies to a counter that it creates."""
        adapter.increment("namespace", "key", ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "key")
