"""Cases: a value that is returned and removed in one operation."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import BatchRefusedError, IdempotencyConflictError, ReadTooLargeError, RecordTooLargeError
from kvworker.model import MAX_KEPT_BYTES, MAX_READ_BYTES, GetAndDeleteResult, JSONValue, Step, make_step
from kvworker.testing.support import SHORT_TTL_SECONDS, AdapterFactory, Cases, eventually, ledger, text_of


def _take(key: str) -> Step:
    return make_step("get_and_delete", {"key": key})


class RemovalCases(Cases):
    """Values that are got and deleted."""

    @pytest.mark.parametrize(
        "value", [None, False, 0, -0.0, 1.0, 1e100, 2**70, "", "nul\x00 é \U0001f600", [], [None], {}, {"a": [False]}]
    )
    def test_a_value_is_returned_and_removed(self, adapter: KeyValueStoreAdapter, value: JSONValue) -> None:
        """The result has the value as it was stored, and so has a replay; the entry and its bytes are gone."""
        adapter.set("namespace", "key", value)
        taken = adapter.get_and_delete("namespace", "key", operation_id="once")
        assert (taken.found, repr(taken.value), taken.replayed) == (True, repr(value), False)
        assert not adapter.get("namespace", "key").found
        assert ledger(adapter, "namespace") == (0, 0)
        adapter.set("namespace", "key", "newer")
        again = adapter.get_and_delete("namespace", "key", operation_id="once")
        assert (again.found, repr(again.value), again.replayed) == (True, repr(value), True)
        assert adapter.get("namespace", "key").value == "newer"
        assert "value" in again.to_dict()

    def test_missing_and_expired_entries_are_not_found(self, adapter: KeyValueStoreAdapter) -> None:
        """Nothing to remove gives ``found=False`` without a value, and that is recorded too."""
        adapter.set("namespace", "expired", 1, ttl_seconds=SHORT_TTL_SECONDS)
        eventually(lambda: not adapter.get("namespace", "expired").found)
        for key in ("expired", "missing"):
            taken = adapter.get_and_delete("namespace", key, operation_id=key)
            assert taken.to_dict() == {"namespace": "namespace", "key": key, "found": False, "replayed": False}
            adapter.set("namespace", key, 1)
            assert adapter.get_and_delete("namespace", key, operation_id=key).to_dict() == {
                "namespace": "namespace",
                "key": key,
                "found": False,
                "replayed": True,
            }
        with pytest.raises(IdempotencyConflictError):
            adapter.get_and_delete("namespace", "other", operation_id="missing")
        with pytest.raises(IdempotencyConflictError):
            adapter.delete("namespace", "missing", operation_id="missing")

    def test_a_value_above_64_kib_is_refused(self, make_adapter: AdapterFactory) -> None:
        """A record keeps 64 KiB of a value. A larger one raises ``RecordTooLargeError`` and stays."""
        adapter = make_adapter(namespace_quota_bytes=10 * MAX_KEPT_BYTES)
        adapter.set("namespace", "largest", text_of(MAX_KEPT_BYTES))
        adapter.set("namespace", "larger", "é" * (MAX_KEPT_BYTES // 2))
        for _ in range(2):
            taken = adapter.get_and_delete("namespace", "largest", operation_id="largest")
            assert taken.value == text_of(MAX_KEPT_BYTES)
        with pytest.raises(RecordTooLargeError) as caught:
            adapter.get_and_delete("namespace", "larger", operation_id="larger")
        assert caught.value.args == ("namespace", "larger", MAX_KEPT_BYTES, MAX_KEPT_BYTES + 2)
        assert adapter.get("namespace", "larger").found
        adapter.set("namespace", "larger", 1)
        assert adapter.get_and_delete("namespace", "larger", operation_id="larger").value == 1

    def test_a_batch_takes_values_in_order(self, adapter: KeyValueStoreAdapter) -> None:
        """The second removal of a key finds nothing; a replay returns the values again, whatever is there now."""
        steps = [
            Step("set", "key", value=["first"]),
            make_step("append", {"key": "key", "items": ["second"]}),
            _take("key"),
            _take("key"),
            make_step("append", {"key": "key", "items": ["third"]}),
        ]
        adapter.set("namespace", "key", "old")
        for _ in range(2):
            first, second = adapter.batch("namespace", steps, operation_id="batch").results[2:4]
            assert isinstance(first, GetAndDeleteResult)
            assert isinstance(second, GetAndDeleteResult)
            assert (first.value, second.found) == (["first", "second"], False)
            assert adapter.get("namespace", "key").value == ["third"]

    def test_a_batch_is_bounded_as_if_it_read(self, make_adapter: AdapterFactory) -> None:
        """A batch takes as many bytes of values as it may read; each value has at most 64 KiB."""
        adapter = make_adapter(namespace_quota_bytes=2 * MAX_READ_BYTES)
        count = MAX_READ_BYTES // MAX_KEPT_BYTES + 1
        value = text_of(MAX_KEPT_BYTES)
        adapter.batch("namespace", [Step("set", f"key {number}", value=value) for number in range(count)])
        with pytest.raises(ReadTooLargeError):
            adapter.batch("namespace", [_take(f"key {number}") for number in range(count)])
        assert ledger(adapter, "namespace") == (count * MAX_KEPT_BYTES, count)
        results = adapter.batch("namespace", [_take(f"key {number}") for number in range(count - 1)]).results
        assert all(isinstance(result, GetAndDeleteResult) and result.value == value for result in results)
        adapter.set("namespace", "large", text_of(MAX_KEPT_BYTES + 1))
        with pytest.raises(BatchRefusedError) as caught:
            adapter.batch("namespace", [Step("set", "key", value=1), _take("large")])
        assert isinstance(caught.value.error, RecordTooLargeError)
        assert not adapter.get("namespace", "key").found

    def test_only_one_of_several_callers_gets_a_value(self, adapter: KeyValueStoreAdapter) -> None:
        """Of concurrent removals of one entry exactly one finds it."""
        for number in range(10):
            adapter.set("namespace", "key", number)
            with ThreadPoolExecutor(4) as threads:
                taken = list(threads.map(lambda _: adapter.get_and_delete("namespace", "key"), range(4)))
            assert [each.value for each in taken if each.found] == [number]
