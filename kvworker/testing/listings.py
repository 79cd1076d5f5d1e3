"""Cases: keys and namespaces are listed in order, page by page; clear empties a namespace."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import IdempotencyConflictError, InvalidKeyError, InvalidRequestError
from kvworker.model import LedgerUsage
from kvworker.testing.support import SHORT_TTL_SECONDS, AdapterFactory, Cases, ledger, text_of, wait_for_expiry

_NAMES = ["a", "a/1", "a/2", "a\ud7fb", "a\ue000", "a\U0010ffff", "b", "\u00e9", "\U0001f600"]


def all_keys(adapter: KeyValueStoreAdapter, limit: int = 2, **options: Any) -> list[str]:
    """Read a namespace's keys in pages."""
    keys: list[str] = []
    cursor: str | None = None
    while True:
        page = adapter.list_keys("namespace", limit=limit, cursor=cursor, **options)
        assert len(page.entries) <= limit
        keys += [entry.key for entry in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            return keys


class ListingCases(Cases):
    """Listings."""

    def test_keys_are_listed_in_order_of_their_code_points(self, adapter: KeyValueStoreAdapter) -> None:
        """Pages of any size list every key once, in code point order, and the last one has no ``next_cursor``."""
        for name in reversed(_NAMES):
            adapter.set("namespace", name, 1)
        adapter.set("namespaces", "another", 1)
        for limit in (1, 2, len(_NAMES), 1000):
            assert all_keys(adapter, limit) == sorted(_NAMES)
        page = adapter.list_keys("namespace", limit=len(_NAMES))
        assert page.next_cursor is None

    @pytest.mark.parametrize(
        "prefix", ["", "a", "a/", "a\ud7ff", "a\U0010ffff", "\U0010ffff", "none", "b", "\u00e9", " "]
    )
    def test_a_prefix_selects_keys(self, adapter: KeyValueStoreAdapter, prefix: str) -> None:
        """A prefix is compared by code points, up to the largest one, and a prefix of no key gives no entries."""
        for name in _NAMES:
            adapter.set("namespace", name, 1)
        assert all_keys(adapter, prefix=prefix) == sorted(name for name in _NAMES if name.startswith(prefix))

    def test_wildcards_are_literal(self, adapter: KeyValueStoreAdapter) -> None:
        """``%`` and ``_`` in a prefix stand for themselves."""
        for name in ("100%", "100", "1_0", "110"):
            adapter.set("namespace", name, 1)
        assert all_keys(adapter, prefix="100%") == ["100%"]
        assert all_keys(adapter, prefix="1_") == ["1_0"]

    def test_a_listed_entry_has_its_properties(self, adapter: KeyValueStoreAdapter) -> None:
        """An entry has its version, size in bytes and remaining seconds, and its value only with ``include_values``."""
        version = adapter.set("namespace", "a", {"x": "\u00e9"}, ttl_seconds=60).version
        adapter.set("namespace", "b", None)
        first, second = adapter.list_keys("namespace").entries
        assert (first.key, first.version, first.size_bytes, first.value) == ("a", version, 10, None)
        assert 0 < (first.ttl_seconds or 0) <= 60.01
        assert second.ttl_seconds is None
        page = adapter.list_keys("namespace", include_values=True)
        assert [entry.value for entry in page.entries] == [{"x": "\u00e9"}, None]
        assert [set(entry) for entry in page.to_dict()["entries"]] == [
            {"key", "version", "size_bytes", "ttl_seconds", "value"},
            {"key", "version", "size_bytes", "value"},
        ]
        assert "value" not in adapter.list_keys("namespace").to_dict()["entries"][0]

    def test_expired_entries_are_not_listed(self, adapter: KeyValueStoreAdapter) -> None:
        """An expired entry is not listed, even if no sweep has removed it yet."""
        adapter.set("namespace", "a", 1, ttl_seconds=SHORT_TTL_SECONDS)
        adapter.set("namespace", "b", 1)
        wait_for_expiry(adapter, "namespace", "a")
        assert all_keys(adapter) == ["b"]

    def test_a_page_of_values_is_bounded_but_never_empty(self, make_adapter: AdapterFactory) -> None:
        """A page ends before its values exceed 4 MiB, but a single value that is larger still makes a page."""
        adapter = make_adapter(namespace_quota_bytes=12_000_000)
        for key, size_bytes in (("a", 1_500_000), ("b", 2_000_000), ("c", 5_000_000), ("d", 10)):
            adapter.set("namespace", key, text_of(size_bytes))
        pages, cursor = [], None
        while True:
            page = adapter.list_keys("namespace", cursor=cursor, include_values=True)
            pages.append([entry.key for entry in page.entries])
            assert all(entry.value for entry in page.entries)
            cursor = page.next_cursor
            if cursor is None:
                break
        assert pages == [["a", "b"], ["c"], ["d"]]
        assert len(adapter.list_keys("namespace").entries) == 4

    def test_an_unknown_namespace_is_empty(self, adapter: KeyValueStoreAdapter) -> None:
        """A namespace that was never written has an empty page, and listing it is not an error."""
        page = adapter.list_keys("namespace")
        assert page.to_dict() == {"namespace": "namespace", "entries": [], "next_cursor": None}

    @pytest.mark.parametrize("limit", [0, -1, 1001, True, 1.0, "1", None])
    def test_bad_limits_are_refused(self, adapter: KeyValueStoreAdapter, limit: Any) -> None:
        """A page's limit must be an ``int`` from 1 to 1000, or the call raises ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError):
            adapter.list_keys("namespace", limit=limit)
        with pytest.raises(InvalidRequestError):
            adapter.list_namespaces(limit=limit)

    @pytest.mark.parametrize("prefix", [None, 5, "a\x00", "\ud800", "x" * 1025])
    def test_bad_prefixes_are_refused(self, adapter: KeyValueStoreAdapter, prefix: Any) -> None:
        """A prefix must be text that could begin a name, or the call raises ``InvalidKeyError``."""
        with pytest.raises(InvalidKeyError):
            adapter.list_keys("namespace", prefix=prefix)
        with pytest.raises(InvalidKeyError):
            adapter.list_namespaces(prefix=prefix)

    def test_namespaces_are_listed_with_their_usage(self, adapter: KeyValueStoreAdapter) -> None:
        """Namespaces that hold entries are listed in code point order with used bytes, entries and quota."""
        for number, name in enumerate(_NAMES):
            adapter.set(name, "key", text_of(10 + number))
        adapter.set("emptied", "key", 1)
        adapter.delete("emptied", "key")
        adapter.set_quota("only a quota", 5)
        adapter.set("expired", "key", 1, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "expired", "key")
        found: list[LedgerUsage] = []
        cursor: str | None = None
        while True:
            page = adapter.list_namespaces(limit=2, cursor=cursor)
            found += page.namespaces
            cursor = page.next_cursor
            if cursor is None:
                break
        quota_bytes = adapter.usage("a")[0].quota_bytes
        expected = [LedgerUsage(name, 10 + _NAMES.index(name), 1, quota_bytes) for name in sorted(_NAMES)]
        assert found == expected
        assert [usage.namespace for usage in adapter.list_namespaces(prefix="a/").namespaces] == ["a/1", "a/2"]

    def test_the_usage_of_the_whole_store(self, make_adapter: AdapterFactory) -> None:
        """``total_usage`` returns the sums of all namespaces, with or without a global quota."""
        adapter = make_adapter()
        adapter.set("one", "key", 12)
        adapter.set("two", "key", 1)
        assert adapter.total_usage() == LedgerUsage(None, 3, 2, None)
        assert make_adapter(global_quota_bytes=500).total_usage() == LedgerUsage(None, 3, 2, 500)


class ClearCases(Cases):
    """Clearing a namespace."""

    def test_clear_removes_every_entry_of_the_namespace(self, adapter: KeyValueStoreAdapter) -> None:
        """``clear`` counts only live entries as deleted, but the bytes of expired ones as freed too."""
        for name in _NAMES:
            adapter.set("namespace", name, 12)
        adapter.set("namespace", "old", 123, ttl_seconds=SHORT_TTL_SECONDS)
        adapter.set("namespaces", "key", 1)
        wait_for_expiry(adapter, "namespace", "old")
        cleared = adapter.clear("namespace")
        assert (cleared.deleted_entries, cleared.freed_bytes) == (len(_NAMES), 2 * len(_NAMES) + 3)
        assert all_keys(adapter) == []
        assert ledger(adapter, "namespace") == (0, 0)
        assert ledger(adapter, "namespaces") == (1, 1)
        assert adapter.clear("namespace").deleted_entries == 0

    def test_clear_gives_the_global_quota_back(self, make_adapter: AdapterFactory) -> None:
        """The bytes that ``clear`` frees are available to other namespaces at once."""
        adapter = make_adapter(global_quota_bytes=100)
        adapter.set("namespace", "key", text_of(100))
        adapter.clear("namespace")
        adapter.set("another", "key", text_of(100))
        assert adapter.recompute_ledgers().drifts == ()

    def test_clear_is_replayed(self, adapter: KeyValueStoreAdapter) -> None:
        """A replayed clear returns the first counts and leaves entries that were written since."""
        adapter.set("namespace", "key", 12)
        first = adapter.clear("namespace", operation_id="operation")
        adapter.set("namespace", "key", 12)
        again = adapter.clear("namespace", operation_id="operation")
        assert (first.replayed, again.replayed) == (False, True)
        assert (again.deleted_entries, again.freed_bytes) == (1, 2)
        assert adapter.get("namespace", "key").found
        with pytest.raises(IdempotencyConflictError):
            adapter.delete("namespace", "key", operation_id="operation")
