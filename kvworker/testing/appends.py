"""Cases: lists that several callers append to."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import (
    BatchRefusedError,
    IdempotencyConflictError,
    InvalidRequestError,
    InvalidValueTypeError,
    NamespaceQuotaExceededError,
    ValueSerializationError,
)
from kvworker.model import MAX_VALUE_DEPTH, AppendResult, JSONValue, Step, make_step
from kvworker.testing.support import SHORT_TTL_SECONDS, AdapterFactory, Cases, ledger, text_of, wait_for_expiry

_ODD_ITEMS: list[JSONValue] = [
    None,
    True,
    1.0,
    -0.0,
    1e100,
    5e-324,
    2**70,
    "nul\x00",
    "\U0001f600 é \u2028",
    '"],[\\',
    [],
    {},
    [[1]],
    {"": None, "b": 1, "a": [2]},
]


def _append(key: str, *items: JSONValue, **options: Any) -> Step:
    return make_step("append", {"key": key, "items": list(items), **options})


class AppendCases(Cases):
    """Appends."""

    def test_a_missing_entry_is_an_empty_list(self, adapter: KeyValueStoreAdapter) -> None:
        """The first append makes the list; later ones add to its end and give it larger versions."""
        first = adapter.append("namespace", "key", [1, "b"])
        assert (first.length, first.dropped, first.ttl_seconds, first.replayed) == (2, 0, None, False)
        second = adapter.append("namespace", "key", [[3]])
        assert (second.length, second.version) == (3, adapter.get("namespace", "key").version)
        assert (second.version or 0) > (first.version or 0)
        assert adapter.get("namespace", "key").value == [1, "b", [3]]
        assert ledger(adapter, "namespace") == (len('[1,"b",[3]]'), 1)

    def test_an_empty_list_gets_its_first_items(self, adapter: KeyValueStoreAdapter) -> None:
        """A stored list without items works like a missing entry."""
        adapter.set("namespace", "key", [])
        assert adapter.append("namespace", "key", [None]).length == 1
        assert adapter.get("namespace", "key").value == [None]

    def test_items_come_back_as_they_were(self, adapter: KeyValueStoreAdapter) -> None:
        """Items of any JSON type keep their type, their characters and the order of their keys."""
        for item in _ODD_ITEMS:
            adapter.append("namespace", "one by one", [item])
        adapter.append("namespace", "at once", _ODD_ITEMS)
        adapter.append("namespace", "trimmed", ["dropped", *_ODD_ITEMS], max_items=len(_ODD_ITEMS))
        adapter.set("namespace", "set", _ODD_ITEMS)
        expected = repr(_ODD_ITEMS)
        for key in ("one by one", "at once", "trimmed", "set"):
            assert repr(adapter.get("namespace", key).value) == expected
        sizes = {entry.size_bytes for entry in adapter.list_keys("namespace").entries}
        assert len(sizes) == 1

    @pytest.mark.parametrize(
        ("stored", "items", "max_items", "kept", "dropped"),
        [
            ([1, 2], [3], 3, [1, 2, 3], 0),
            ([1, 2], [3], 2, [2, 3], 1),
            ([1, 2, 3], [4], 1, [4], 3),
            ([1, 2, 3, 4, 5], [6], 2, [5, 6], 4),
            (None, [1, 2, 3], 2, [2, 3], 1),
            ([0], [1, 2, 3], 2, [2, 3], 2),
        ],
    )
    def test_max_items_drops_the_oldest(
        self,
        adapter: KeyValueStoreAdapter,
        stored: list[JSONValue] | None,
        items: list[JSONValue],
        max_items: int,
        kept: list[JSONValue],
        dropped: int,
    ) -> None:
        """Beyond ``max_items`` items leave the front, also those of an older, longer list and new ones."""
        if stored is not None:
            adapter.set("namespace", "key", stored)
        result = adapter.append("namespace", "key", items, max_items=max_items)
        assert (result.length, result.dropped) == (len(kept), dropped)
        assert adapter.get("namespace", "key").value == kept
        assert ledger(adapter, "namespace") == (len(str(kept).replace(" ", "")), 1)

    @pytest.mark.parametrize("value", [None, True, 1, "[]", "[1]", {}, {"a": []}])
    def test_a_value_that_is_not_a_list_is_refused(self, adapter: KeyValueStoreAdapter, value: JSONValue) -> None:
        """Any value but a list raises ``InvalidValueTypeError``, which says so, and stays."""
        adapter.set("namespace", "key", value)
        with pytest.raises(InvalidValueTypeError, match="not a list") as caught:
            adapter.append("namespace", "key", [1], operation_id="refused")
        assert caught.value.args == ("namespace", "key", "a list")
        assert adapter.get("namespace", "key").value == value
        adapter.delete("namespace", "key")
        assert adapter.append("namespace", "key", [1], operation_id="refused").length == 1

    def test_a_list_keeps_its_ttl_unless_it_gets_one(self, adapter: KeyValueStoreAdapter) -> None:
        """Without ``ttl_seconds`` a live list keeps its TTL, and an expired one starts without its items and TTL."""
        assert adapter.append("namespace", "key", [1], ttl_seconds=60).ttl_seconds == 60
        kept = adapter.append("namespace", "key", [2])
        assert kept.ttl_seconds is not None
        assert 0 < kept.ttl_seconds <= 60.01
        assert adapter.append("namespace", "key", [3], ttl_seconds=SHORT_TTL_SECONDS).length == 3
        wait_for_expiry(adapter, "namespace", "key")
        fresh = adapter.append("namespace", "key", [4])
        assert (fresh.length, fresh.ttl_seconds) == (1, None)
        assert adapter.get("namespace", "key").value == [4]
        assert ledger(adapter, "namespace") == (3, 1)

    def test_a_repeated_append_is_applied_once(self, adapter: KeyValueStoreAdapter) -> None:
        """A replay gives the first length, dropped items and version, whatever became of the list since."""
        options: dict[str, Any] = {"max_items": 2, "operation_id": "once"}
        adapter.set("namespace", "key", [0, 1])
        first = adapter.append("namespace", "key", [2], **options)
        adapter.append("namespace", "key", [3])
        again = adapter.append("namespace", "key", [2], **options)
        assert (again.length, again.dropped, again.version, again.replayed) == (2, 1, first.version, True)
        adapter.delete("namespace", "key")
        assert adapter.append("namespace", "key", [2], **options).replayed
        assert not adapter.get("namespace", "key").found
        others: list[tuple[list[JSONValue], dict[str, Any]]]
        others = [([2, 2], {}), ([2.0], {}), ([2], {"max_items": 3}), ([2], {"ttl_seconds": 5})]
        for items, changed in others:
            with pytest.raises(IdempotencyConflictError):
                adapter.append("namespace", "key", items, **{**options, **changed})

    @pytest.mark.parametrize("items", [[], (), (1,), "text", {"a": 1}, None, 5])
    def test_items_must_be_a_list(self, adapter: KeyValueStoreAdapter, items: Any) -> None:
        """``items`` is a list of at least one; anything else raises ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError, match="items must be a list of at least one JSON value"):
            adapter.append("namespace", "key", items)

    @pytest.mark.parametrize("item", ["\ud800", float("nan"), float("inf"), (1,), {1: 2}, b"x"])
    def test_an_item_must_be_json(self, adapter: KeyValueStoreAdapter, item: Any) -> None:
        """An item that is no JSON value, such as NaN or a lone surrogate, raises ``ValueSerializationError``."""
        with pytest.raises(ValueSerializationError):
            adapter.append("namespace", "key", [1, item])
        assert not adapter.get("namespace", "key").found

    def test_an_item_may_be_as_deep_as_a_value(self, adapter: KeyValueStoreAdapter) -> None:
        """The list is one of the 256 levels of its value."""
        item: JSONValue = 1
        for _ in range(MAX_VALUE_DEPTH - 1):
            item = [item]
        for length in (1, 2):
            assert adapter.append("namespace", "key", [item]).length == length
        with pytest.raises(ValueSerializationError):
            adapter.append("namespace", "key", [[item]])
        assert adapter.get("namespace", "key").value == [item, item]

    @pytest.mark.parametrize("max_items", [0, -1, True, 1.5, "2", 2**63])
    def test_max_items_must_be_a_positive_integer(self, adapter: KeyValueStoreAdapter, max_items: Any) -> None:
        """Another ``max_items`` raises ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError, match="max_items must be"):
            adapter.append("namespace", "key", [1], max_items=max_items)

    def test_a_list_stays_within_the_quota(self, make_adapter: AdapterFactory) -> None:
        """A list that would be too large is refused and stays; it may reach the quota, and with ``max_items`` go on."""
        adapter = make_adapter(namespace_quota_bytes=100)
        adapter.append("namespace", "key", [text_of(50)])
        with pytest.raises(NamespaceQuotaExceededError) as caught:
            adapter.append("namespace", "key", [text_of(48)])
        assert (caught.value.used_bytes, caught.value.requested_bytes) == (52, 49)
        assert adapter.get("namespace", "key").value == [text_of(50)]
        assert adapter.append("namespace", "key", [text_of(47)]).length == 2
        assert ledger(adapter, "namespace") == (100, 1)
        # It shrinks, so it passes in a full namespace.
        assert adapter.append("namespace", "key", [text_of(90)], max_items=1).dropped == 2
        assert ledger(adapter, "namespace") == (92, 1)

    def test_a_batch_appends_in_order(self, adapter: KeyValueStoreAdapter) -> None:
        """The appends of a batch see each other, and its other operations on the key."""
        steps = [
            _append("key", 1),
            _append("key", 2, 3, max_items=2),
            Step("get", "key"),
            Step("delete", "key"),
            _append("key", 4, ttl_seconds=60),
        ]
        batch = adapter.batch("namespace", steps, operation_id="batch")
        appended = [result for result in batch.results if isinstance(result, AppendResult)]
        assert [(each.length, each.dropped, each.ttl_seconds) for each in appended] == [
            (1, 0, None),
            (2, 1, None),
            (1, 0, 60),
        ]
        assert getattr(batch.results[2], "value", None) == [2, 3]
        assert adapter.get("namespace", "key").value == [4]

    def test_a_batch_of_appends_is_replayed(self, adapter: KeyValueStoreAdapter) -> None:
        """Each append of a batch gives its first length and version again, and the versions grow."""
        steps = [_append("key", 1), _append("key", 2)]
        first, again = (adapter.batch("namespace", steps, operation_id="batch") for _ in range(2))
        assert [getattr(result, "length", None) for result in again.results] == [1, 2]
        versions = [getattr(result, "version", 0) for result in first.results]
        assert versions == sorted(set(versions))
        assert (versions, again.replayed) == ([getattr(result, "version", 0) for result in again.results], True)
        assert adapter.get("namespace", "key").value == [1, 2]

    def test_a_refused_append_refuses_an_atomic_batch(self, adapter: KeyValueStoreAdapter) -> None:
        """The batch's error names the append; without ``atomic`` only the append itself is refused."""
        steps = [_append("list", 1), Step("set", "text", value="t"), _append("text", 1)]
        with pytest.raises(BatchRefusedError) as caught:
            adapter.batch("namespace", steps)
        assert caught.value.index == 2
        assert isinstance(caught.value.error, InvalidValueTypeError)
        assert not adapter.get("namespace", "list").found
        results = adapter.batch("namespace", steps, atomic=False).results
        assert [type(result).__name__ for result in results] == ["AppendResult", "SetResult", "InvalidValueTypeError"]
        assert str(results[2]) == str(caught.value.error)

    def test_concurrent_appends_lose_nothing(self, adapter: KeyValueStoreAdapter) -> None:
        """Eight writers at once, each append sent twice: every item is there once, in its writer's order."""

        def write(writer: int) -> list[int]:
            lengths = []
            for number in range(10):
                options: dict[str, Any] = {"operation_id": f"{writer}/{number}"}
                lengths.append(adapter.append("namespace", "key", [[writer, number]], **options).length)
                assert adapter.append("namespace", "key", [[writer, number]], **options).length == lengths[-1]
            return lengths

        with ThreadPoolExecutor(8) as threads:
            lengths = [length for each in threads.map(write, range(8)) for length in each]
        assert sorted(lengths) == list(range(1, 81))
        value: Any = adapter.get("namespace", "key").value
        for writer in range(8):
            assert [number for name, number in value if name == writer] == list(range(10))
