"""Cases: namespaces and keys are kept exactly, or refused."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import InvalidKeyError, InvalidRequestError
from kvworker.testing.support import Cases

_BAD_NAMES = ["", " ", "\t\n", None, 5, b"name", "a\x00b", "\ud800", ["a"]]
_GOOD_NAMES = [" padded ", "Case", "case", "\u00e9", "e\u0301", "a/b:c", "100%_", "'; --", "\U0001f600", "-", "\x01"]


class NameCases(Cases):
    """Namespaces and keys."""

    @pytest.mark.parametrize("name", [*_BAD_NAMES, "x" * 256, "\u00e9" * 128])
    def test_bad_namespaces_are_refused_by_every_operation(self, adapter: KeyValueStoreAdapter, name: Any) -> None:
        """A namespace that is blank, not UTF-8 text, has a NUL or exceeds 255 bytes raises ``InvalidKeyError``."""
        for operation in (adapter.get, adapter.delete, adapter.increment):
            with pytest.raises(InvalidKeyError):
                operation(name, "key")
        with pytest.raises(InvalidKeyError):
            adapter.set(name, "key", 1)
        with pytest.raises(InvalidKeyError):
            adapter.usage(name if name is not None else "")

    @pytest.mark.parametrize("name", [*_BAD_NAMES, "x" * 1025, "\u00e9" * 513])
    def test_bad_keys_are_refused_by_every_operation(self, adapter: KeyValueStoreAdapter, name: Any) -> None:
        """A key that is blank, not UTF-8 text, has a NUL or exceeds 1024 bytes raises ``InvalidKeyError``."""
        for operation in (adapter.get, adapter.delete, adapter.increment):
            with pytest.raises(InvalidKeyError):
                operation("namespace", name)
        with pytest.raises(InvalidKeyError):
            adapter.set("namespace", name, 1)
        assert adapter.usage() == []

    @pytest.mark.parametrize("operation_id", ["", " ", 5, "a\x00b", "\ud800", "x" * 256])
    def test_bad_operation_ids_are_refused(self, adapter: KeyValueStoreAdapter, operation_id: Any) -> None:
        """An id that is blank, not UTF-8 text, has a NUL or exceeds 255 bytes raises ``InvalidRequestError``."""
        with pytest.raises(InvalidRequestError):
            adapter.set("namespace", "key", 1, operation_id=operation_id)
        with pytest.raises(InvalidRequestError):
            adapter.delete("namespace", "key", operation_id=operation_id)
        with pytest.raises(InvalidRequestError):
            adapter.increment("namespace", "key", operation_id=operation_id)
        assert adapter.usage() == []

    def test_names_are_kept_exactly(self, adapter: KeyValueStoreAdapter) -> None:
        """Names are not trimmed, case-folded or normalized: names that differ in one code point are different."""
        for name in _GOOD_NAMES:
            adapter.set(name, "key", f"namespace {name}")
            adapter.set("namespace", name, f"key {name}")
        for name in _GOOD_NAMES:
            assert adapter.get(name, "key").value == f"namespace {name}"
            assert adapter.get("namespace", name).value == f"key {name}"
        assert {usage.namespace for usage in adapter.usage()} == {"namespace", *_GOOD_NAMES}

    def test_the_longest_names_fit(self, adapter: KeyValueStoreAdapter) -> None:
        """The maximum lengths count bytes of UTF-8, and the store accepts names of exactly that length."""
        namespace, key, operation_id = "\u00e9" * 127 + "x", "\u00e9" * 512, "\u00e9" * 127 + "x"
        result = adapter.set(namespace, key, 1, operation_id=operation_id)
        assert (result.namespace, result.key) == (namespace, key)
        assert adapter.get(namespace, key).value == 1

    def test_namespaces_do_not_see_each_others_keys(self, adapter: KeyValueStoreAdapter) -> None:
        """The same key in two namespaces is two entries."""
        adapter.set("one", "key", 1)
        assert not adapter.get("two", "key").found
        assert not adapter.delete("two", "key").deleted
        assert adapter.increment("two", "key", initial_value=10).value == 11
        assert adapter.get("one", "key").value == 1

    def test_a_miss_is_a_result(self, adapter: KeyValueStoreAdapter) -> None:
        """``get`` and ``delete`` of a missing key return a result that says so, and do not raise."""
        assert adapter.get("namespace", "key").to_dict() == {"namespace": "namespace", "key": "key", "found": False}
        assert adapter.delete("namespace", "key").deleted is False

    def test_a_deleted_entry_is_gone(self, adapter: KeyValueStoreAdapter) -> None:
        """``delete`` returns whether there was an entry, and the next get does not find it."""
        adapter.set("namespace", "key", 1)
        assert adapter.delete("namespace", "key").deleted is True
        assert not adapter.get("namespace", "key").found
        assert adapter.delete("namespace", "key").deleted is False
