"""Cases: a stored value comes back equal, and a value that is not JSON is refused."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import ValueSerializationError
from kvworker.model import JSONValue
from kvworker.testing.support import Cases, ledger

_VALUES: list[JSONValue] = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    2**70,
    -(2**70),
    1.0,
    -0.0,
    1.5e300,
    5e-324,
    0.1,
    "",
    "null",
    "1",
    "\u0000",
    "a\u0000b",
    "\u00e9\u2603\U0001f600\u2028",
    'quote " backslash \\ newline \n percent %s %(x)s colon :x',
    [],
    {},
    [[], {}, None, [1, [2, [3]]]],
    {"b": 1, "a": {"z": [], "y": None}},
    {"": 0, " ": 1, "\u0000": 2},
    "x" * 100_000,
]

_NOT_JSON: list[Any] = [
    math.nan,
    math.inf,
    -math.inf,
    {"deep": [math.nan]},
    object(),
    b"bytes",
    {1, 2},
    {1: "a key that is not a string"},
    (1, 2),
    "\ud800",
    {"\udc00": 1},
    1j,
]


class ValueCases(Cases):
    """Values."""

    @pytest.mark.parametrize("value", _VALUES, ids=lambda value: repr(value)[:20].encode("ascii", "replace").decode())
    def test_values_come_back_unchanged(self, adapter: KeyValueStoreAdapter, value: JSONValue) -> None:
        """A value comes back with its exact types and key order, including large integers, -0.0 and NUL characters."""
        stored = adapter.set("namespace", "key", value)
        found = adapter.get("namespace", "key")
        assert stored.value == found.value == value
        assert found.found
        # In Python 1, 1.0 and True are equal, and the order of keys does not matter; in the text both do.
        assert json.dumps(found.value) == json.dumps(value)

    @pytest.mark.parametrize("value", _NOT_JSON, ids=lambda value: type(value).__name__)
    def test_a_value_that_is_not_json_is_refused_and_changes_nothing(
        self, adapter: KeyValueStoreAdapter, value: Any
    ) -> None:
        """A value that is not JSON, such as NaN or a tuple, raises; the entry stays and the id remains unused."""
        adapter.set("namespace", "key", "before")
        with pytest.raises(ValueSerializationError):
            adapter.set("namespace", "key", value, operation_id="refused")
        assert adapter.get("namespace", "key").value == "before"
        assert not adapter.set("namespace", "key", "after", operation_id="refused").replayed

    def test_a_cycle_is_refused(self, adapter: KeyValueStoreAdapter) -> None:
        """A value that contains itself raises ``ValueSerializationError``."""
        cycle: list[JSONValue] = []
        cycle.append(cycle)
        with pytest.raises(ValueSerializationError):
            adapter.set("namespace", "key", cycle)

    @pytest.mark.parametrize(
        ("value", "size_bytes"), [("\u00e9", 4), ({"a": [1, 2]}, 11), (None, 4), ("\u0000", 8), (12345, 5)]
    )
    def test_quotas_count_the_bytes_of_canonical_json(
        self, adapter: KeyValueStoreAdapter, value: JSONValue, size_bytes: int
    ) -> None:
        """A value uses the bytes of its JSON text in UTF-8, without spaces, and with non-ASCII characters unescaped."""
        adapter.set("namespace", "key", value)
        assert ledger(adapter, "namespace") == (size_bytes, 1)

    def test_a_stored_null_is_found(self, adapter: KeyValueStoreAdapter) -> None:
        """None is a value: ``get`` finds it and returns its version."""
        version = adapter.set("namespace", "key", None).version
        assert adapter.get("namespace", "key").to_dict() == {
            "namespace": "namespace",
            "key": "key",
            "found": True,
            "value": None,
            "version": version,
        }
