"""Cases: a quota is never exceeded, and never refuses a write that fits."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import GlobalQuotaExceededError, NamespaceQuotaExceededError
from kvworker.testing.support import (
    SHORT_TTL_SECONDS,
    AdapterFactory,
    Cases,
    global_ledger,
    ledger,
    text_of,
    wait_for_expiry,
)


class QuotaCases(Cases):
    """Quotas and ledgers."""

    @pytest.fixture
    def small(self, make_adapter: AdapterFactory) -> KeyValueStoreAdapter:
        """Make a store with 100 bytes for each namespace."""
        return make_adapter(namespace_quota_bytes=100)

    @pytest.fixture
    def bounded(self, make_adapter: AdapterFactory) -> KeyValueStoreAdapter:
        """Make a store with 100 bytes for each namespace and 150 in total."""
        return make_adapter(namespace_quota_bytes=100, global_quota_bytes=150)

    def test_a_namespace_fills_to_the_last_byte(self, small: KeyValueStoreAdapter) -> None:
        """A namespace can use its whole quota; the next byte raises with the quota, used and requested bytes."""
        small.set("namespace", "a", text_of(60))
        small.set("namespace", "b", text_of(40))
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            small.set("namespace", "c", 1)
        error = caught.value
        assert (error.namespace, error.quota_bytes, error.used_bytes, error.requested_bytes) == (
            "namespace",
            100,
            100,
            1,
        )
        assert not small.get("namespace", "c").found
        assert ledger(small, "namespace") == (100, 2)
        small.set("another", "c", text_of(100))

    def test_a_first_entry_may_be_too_big(self, small: KeyValueStoreAdapter) -> None:
        """An entry larger than the quota is refused even if the namespace is empty."""
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            small.set("namespace", "key", text_of(101))
        assert (caught.value.used_bytes, caught.value.requested_bytes) == (0, 101)
        assert ledger(small, "namespace") == (0, 0)

    def test_growth_of_an_entry_counts_its_difference(self, small: KeyValueStoreAdapter) -> None:
        """A larger value needs room only for its additional bytes, which the error states as requested."""
        small.set("namespace", "key", text_of(60))
        small.set("namespace", "key", text_of(100))
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            small.set("namespace", "key", text_of(110))
        assert (caught.value.used_bytes, caught.value.requested_bytes) == (100, 10)
        assert small.get("namespace", "key").value == text_of(100)

    def test_increments_are_refused_too(self, small: KeyValueStoreAdapter) -> None:
        """In a full namespace, an increment that adds a digit is refused, and one that does not is applied."""
        small.set("namespace", "counter", 9)
        small.set("namespace", "filler", text_of(99))
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            small.increment("namespace", "counter")
        assert (caught.value.used_bytes, caught.value.requested_bytes) == (100, 1)
        assert small.get("namespace", "counter").value == 9
        assert small.increment("namespace", "counter", delta=-1).value == 8

    def test_a_new_counter_is_refused_too(self, small: KeyValueStoreAdapter) -> None:
        """A new counter must fit with all of its digits."""
        small.set("namespace", "filler", text_of(99))
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            small.increment("namespace", "counter", delta=10)
        assert (caught.value.used_bytes, caught.value.requested_bytes) == (99, 2)

    def test_a_write_that_does_not_grow_always_passes(self, make_adapter: AdapterFactory) -> None:
        """In a namespace that is already over its quota, an entry can still be deleted or replaced by a smaller one."""
        make_adapter(namespace_quota_bytes=1000).set("namespace", "key", text_of(500))
        tight = make_adapter(namespace_quota_bytes=100)
        tight.set("namespace", "key", "y" * 498)
        assert ledger(tight, "namespace") == (500, 1)
        with pytest.raises(NamespaceQuotaExceededError):
            tight.set("namespace", "key", text_of(501))
        tight.set("namespace", "key", text_of(400))
        with pytest.raises(NamespaceQuotaExceededError):
            tight.set("namespace", "other", 1)
        assert tight.delete("namespace", "key").deleted
        tight.set("namespace", "other", 1)

    def test_the_global_quota_covers_all_namespaces(self, bounded: KeyValueStoreAdapter) -> None:
        """The entries of all namespaces together must fit; bytes that one frees are available to another."""
        bounded.set("one", "key", text_of(90))
        bounded.set("two", "key", text_of(60))
        with pytest.raises(GlobalQuotaExceededError) as caught:
            bounded.set("two", "other", 12)
        error = caught.value
        assert (error.quota_bytes, error.used_bytes, error.requested_bytes) == (150, 150, 2)
        assert not bounded.get("two", "other").found
        assert ledger(bounded, "two") == (60, 1)
        assert (global_ledger(bounded).used_bytes, global_ledger(bounded).entry_count) == (150, 2)
        bounded.delete("one", "key")
        bounded.set("two", "other", 12)

    def test_a_global_quota_counts_earlier_entries(self, make_adapter: AdapterFactory) -> None:
        """A new global quota counts stored entries and, from then on, what adapters without the quota write."""
        make_adapter().set("one", "key", text_of(140))
        bounded = make_adapter(global_quota_bytes=150)
        bounded.set("two", "key", text_of(10))
        with pytest.raises(GlobalQuotaExceededError):
            bounded.set("two", "other", 1)
        make_adapter().set("one", "other", text_of(100))
        assert global_ledger(bounded).used_bytes == 250
        bounded.set("one", "key", text_of(100))
        with pytest.raises(GlobalQuotaExceededError):
            bounded.set("two", "other", 1)

    def test_expired_entries_never_cause_a_refusal(self, small: KeyValueStoreAdapter) -> None:
        """An expired entry frees its bytes for the write that would exceed the quota."""
        small.set("namespace", "kept", text_of(10))
        for key in ("a", "b"):
            small.set("namespace", key, text_of(45), ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(small, "namespace", "a", "b")
        small.set("namespace", "new", text_of(90))
        assert ledger(small, "namespace") == (100, 2)

    def test_expired_entries_of_other_namespaces_never_cause_a_refusal(self, bounded: KeyValueStoreAdapter) -> None:
        """Expired entries of any namespace free their bytes for a write that would exceed the global quota."""
        bounded.set("one", "key", text_of(90), ttl_seconds=SHORT_TTL_SECONDS)
        bounded.set("two", "key", text_of(60), ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(bounded, "one", "key")
        wait_for_expiry(bounded, "two", "key")
        bounded.set("three", "key", text_of(100))
        bounded.set("two", "new", text_of(50))
        assert global_ledger(bounded).used_bytes == 150

    def test_a_refused_write_leaves_no_record(self, small: KeyValueStoreAdapter) -> None:
        """A write that exceeds the quota does not use up its operation id."""
        small.set("namespace", "filler", text_of(100))
        with pytest.raises(NamespaceQuotaExceededError):
            small.set("namespace", "key", 1, operation_id="operation")
        small.delete("namespace", "filler")
        assert not small.was_applied("namespace", "operation")
        assert not small.set("namespace", "key", 1, operation_id="operation").replayed
        assert small.get("namespace", "key").value == 1

    def test_ledgers_follow_every_write(self, adapter: KeyValueStoreAdapter) -> None:
        """Every write changes the ledger by its difference in bytes and entries; a replacement adds no entry."""
        adapter.set("namespace", "a", text_of(20))
        adapter.set("namespace", "b", text_of(30))
        assert ledger(adapter, "namespace") == (50, 2)
        adapter.set("namespace", "a", text_of(5))
        assert ledger(adapter, "namespace") == (35, 2)
        adapter.set("namespace", "a", "123")
        assert ledger(adapter, "namespace") == (35, 2)
        adapter.increment("namespace", "c", delta=100)
        assert ledger(adapter, "namespace") == (38, 3)
        adapter.delete("namespace", "b")
        adapter.delete("namespace", "missing")
        assert ledger(adapter, "namespace") == (8, 2)
