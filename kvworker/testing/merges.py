"""Cases: values that several callers merge patches into."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import (
    IdempotencyConflictError,
    NamespaceQuotaExceededError,
    ValueSerializationError,
    VersionConflictError,
)
from kvworker.model import MAX_VALUE_DEPTH, JSONValue, MergeResult, Step, make_step
from kvworker.testing.support import SHORT_TTL_SECONDS, AdapterFactory, Cases, ledger, text_of, wait_for_expiry

_ARTICLE: dict[str, JSONValue] = {
    "title": "Goodbye!",
    "author": {"givenName": "John", "familyName": "Doe"},
    "tags": ["example", "sample"],
    "content": "This will be unchanged",
}
#: The example of RFC 7396's section 3, and those of its appendix A: a value, a patch and the value afterwards.
_RFC_7396: list[tuple[JSONValue, JSONValue, JSONValue]] = [
    (
        _ARTICLE,
        {"title": "Hello!", "phoneNumber": "+01-123-456-7890", "author": {"familyName": None}, "tags": ["example"]},
        {
            "title": "Hello!",
            "author": {"givenName": "John"},
            "tags": ["example"],
            "content": "This will be unchanged",
            "phoneNumber": "+01-123-456-7890",
        },
    ),
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


def _nested(depth: int, innermost: JSONValue) -> JSONValue:
    for _ in range(depth):
        innermost = {"a": innermost}
    return innermost


class MergeCases(Cases):
    """Merges."""

    @pytest.mark.parametrize(("value", "patch", "merged"), _RFC_7396)
    def test_patches_merge_as_in_rfc_7396(
        self, adapter: KeyValueStoreAdapter, value: JSONValue, patch: JSONValue, merged: JSONValue
    ) -> None:
        """Every example of the RFC, with the order of the members and the ledger."""
        before = adapter.set("namespace", "key", value).version
        result = adapter.merge("namespace", "key", patch)
        entry = adapter.get("namespace", "key")
        assert repr(entry.value) == repr(merged)
        assert result.version == entry.version
        assert (result.version or 0) > (before or 0)
        adapter.set("namespace", "equal", merged)
        sizes = {listed.size_bytes for listed in adapter.list_keys("namespace").entries}
        assert (len(sizes), ledger(adapter, "namespace")) == (1, (2 * sizes.pop(), 2))

    def test_a_missing_entry_is_an_empty_object(self, adapter: KeyValueStoreAdapter) -> None:
        """Merging into nothing stores the patch without its nulls."""
        first = adapter.merge("namespace", "key", {"a": 1, "b": None, "c": {"d": None}})
        assert (first.ttl_seconds, first.replayed) == (None, False)
        assert adapter.get("namespace", "key").value == {"a": 1, "c": {}}

    def test_what_a_patch_does_not_name_stays_as_it_was(self, adapter: KeyValueStoreAdapter) -> None:
        """Numbers keep their digits and texts their characters, in the old members and in the new ones."""
        value: dict[str, JSONValue] = {"": -0.0, "big": 2**70, "nul\x00": "\x00", "é": 1e100, "null": None, "one": 1.0}
        patch: dict[str, JSONValue] = {"\U0001f600": [1.0, -0.0, None, {"x": None}], "nul\x00": "\u2028"}
        adapter.set("namespace", "key", value)
        adapter.merge("namespace", "key", patch)
        assert repr(adapter.get("namespace", "key").value) == repr({**value, **patch})

    def test_an_entry_keeps_its_ttl_unless_it_gets_one(self, adapter: KeyValueStoreAdapter) -> None:
        """Without ``ttl_seconds`` a live entry keeps its TTL, and an expired one is an empty object without a TTL."""
        assert adapter.merge("namespace", "key", {"a": 1}, ttl_seconds=60).ttl_seconds == 60
        kept = adapter.merge("namespace", "key", {"b": 2})
        assert kept.ttl_seconds is not None
        assert 0 < kept.ttl_seconds <= 60.01
        adapter.merge("namespace", "key", {}, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", "key")
        assert adapter.merge("namespace", "key", {"c": 3}).ttl_seconds is None
        assert adapter.get("namespace", "key").value == {"c": 3}

    def test_a_merge_can_expect_a_version(self, adapter: KeyValueStoreAdapter) -> None:
        """Another version, or a missing entry, raises ``VersionConflictError`` and changes nothing."""
        version = adapter.set("namespace", "key", {"a": 1}).version
        assert version is not None
        newer = adapter.merge("namespace", "key", {"b": 2}, expected_version=version).version
        with pytest.raises(VersionConflictError) as caught:
            adapter.merge("namespace", "key", {"c": 3}, expected_version=version)
        assert caught.value.actual_version == newer
        with pytest.raises(VersionConflictError):
            adapter.merge("namespace", "missing", {"c": 3}, expected_version=version)
        assert adapter.get("namespace", "key").value == {"a": 1, "b": 2}

    def test_a_repeated_merge_is_applied_once(self, adapter: KeyValueStoreAdapter) -> None:
        """A replay returns the first version and leaves what was written since."""
        first = adapter.merge("namespace", "key", {"a": 1}, operation_id="once")
        adapter.set("namespace", "key", {"a": 2})
        again = adapter.merge("namespace", "key", {"a": 1}, operation_id="once")
        assert (again.version, again.replayed) == (first.version, True)
        assert adapter.get("namespace", "key").value == {"a": 2}
        others: list[tuple[JSONValue, dict[str, Any]]]
        others = [({"a": 1.0}, {}), (None, {}), ({"a": 1}, {"ttl_seconds": 5}), ({"a": 1}, {"expected_version": 5})]
        for patch, changed in others:
            with pytest.raises(IdempotencyConflictError):
                adapter.merge("namespace", "key", patch, operation_id="once", **changed)

    def test_a_merged_value_stays_within_the_limits(self, make_adapter: AdapterFactory) -> None:
        """A merged value that exceeds the quota is refused and nothing changes; so is a patch that is too deep."""
        adapter = make_adapter(namespace_quota_bytes=100)
        adapter.merge("namespace", "key", {"a": text_of(50)})
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            adapter.merge("namespace", "key", {"b": text_of(50)})
        assert (caught.value.used_bytes, caught.value.requested_bytes) == (56, 55)
        assert ledger(adapter, "namespace") == (56, 1)
        adapter.merge("namespace", "key", {"a": None, "b": text_of(90)})
        assert ledger(adapter, "namespace") == (96, 1)
        adapter = make_adapter()
        deepest = _nested(MAX_VALUE_DEPTH, 1)
        adapter.set("deep", "key", deepest)
        adapter.merge("deep", "key", _nested(MAX_VALUE_DEPTH, 2))
        assert adapter.get("deep", "key").value == _nested(MAX_VALUE_DEPTH, 2)
        with pytest.raises(ValueSerializationError):
            adapter.merge("deep", "key", _nested(MAX_VALUE_DEPTH + 1, 2))

    def test_a_batch_merges_in_order(self, adapter: KeyValueStoreAdapter) -> None:
        """The merges of a batch see each other and the batch's other operations on the key."""
        steps = [
            Step("set", "key", value={"a": 1}),
            make_step("merge", {"key": "key", "patch": {"b": {"c": 2}}}),
            make_step("merge", {"key": "key", "patch": {"a": None, "b": {"d": 3}}, "ttl_seconds": 60}),
        ]
        for replayed in (False, True):
            batch = adapter.batch("namespace", steps, operation_id="batch")
            assert batch.replayed == replayed
            merge = batch.results[2]
            assert isinstance(merge, MergeResult)
            assert merge.ttl_seconds is not None
            assert adapter.get("namespace", "key").value == {"b": {"c": 2, "d": 3}}

    def test_concurrent_merges_lose_nothing(self, adapter: KeyValueStoreAdapter) -> None:
        """Callers that set different members at once all find theirs afterwards."""
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda number: adapter.merge("namespace", "key", {str(number): number}), range(40)))
        assert adapter.get("namespace", "key").value == {str(number): number for number in range(40)}
