"""Checks of arguments, canonical JSON, and the dicts that cross the queue."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvworker.errors import (
    InvalidKeyError,
    InvalidRequestError,
    InvalidTTLError,
    ValueSerializationError,
)
from kvworker.model import (
    INT64_MAX,
    INT64_MIN,
    MAX_TTL_SECONDS,
    MAX_VALUE_DEPTH,
    DeleteResult,
    GetResult,
    IncrementResult,
    LedgerDrift,
    LedgerUsage,
    PruneReport,
    RecomputeReport,
    SetResult,
    SweepReport,
    check_integer,
    check_key,
    check_namespace,
    check_operation_id,
    check_ttl,
    decode_value,
    encode_value,
    new_operation_id,
)

UTF8_TEXT = st.text(st.characters(codec="utf-8"))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | UTF8_TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(UTF8_TEXT, children, max_size=4),
    max_leaves=20,
)
CHECKS: list[tuple[Callable[[object], str], int, type[InvalidRequestError]]] = [
    (check_namespace, 255, InvalidKeyError),
    (check_key, 1024, InvalidKeyError),
    (check_operation_id, 255, InvalidRequestError),
]


def nested(levels: int, leaf: object) -> object:
    value = leaf
    for _ in range(levels):
        value = [value]
    return value


def exactly(value: object) -> str:
    """Equality that tells True from 1, 1.0 from 1, -0.0 from 0.0 and one key order from another."""
    return repr(value)


@given(JSON_VALUES)
def test_what_comes_back_equals_what_went_in(value: Any) -> None:
    assert exactly(decode_value(encode_value(value))) == exactly(value)


@given(JSON_VALUES)
def test_the_text_is_canonical(value: Any) -> None:
    text = encode_value(value)
    assert encode_value(decode_value(text)) == text
    assert text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (2**70, "1180591620717411303424"),
        (1.0, "1.0"),
        ("\0", '"\\u0000"'),
        ("ключ 🔑", '"ключ 🔑"'),
        ({}, "{}"),
        ({"b": 1, "a": [1, 2]}, '{"b":1,"a":[1,2]}'),
        ([], "[]"),
        ("[" * 1000, '"' + "[" * 1000 + '"'),
    ],
)
def test_known_texts(value: Any, text: str) -> None:
    assert encode_value(value) == text
    assert exactly(decode_value(text)) == exactly(value)


def cyclic() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        [math.nan],
        {"a": math.inf},
        b"bytes",
        {1, 2},
        object(),
        Decimal(1),
        datetime(2026, 1, 1),
        (1, 2),
        [(1, 2)],
        {1: "a"},
        {True: "a"},
        {None: "a"},
        {(1, 2): "a"},
        {1: "a", "1": "b"},
        "\ud800",
        {"\udfff": 1},
        ["ok", {"deep": "\ud800"}],
        cyclic(),
        10**5000,
        [10**5000],
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_that_are_not_json_are_refused(value: object) -> None:
    with pytest.raises(ValueSerializationError) as caught:
        encode_value(value)
    assert str(caught.value)
    json.dumps(caught.value.args)


@pytest.mark.parametrize("leaf", [1, [], {}, "x", [[], []]])
def test_nesting_is_bounded_by_containers(leaf: object) -> None:
    inner = {int: 0, str: 0, dict: 1, list: 2 if leaf else 1}[type(leaf)]
    fits = nested(MAX_VALUE_DEPTH - inner, leaf)
    assert decode_value(encode_value(fits)) == fits
    with pytest.raises(ValueSerializationError, match="nested deeper than 256 levels"):
        encode_value([fits])


def test_breadth_is_not_depth() -> None:
    value: Any = [nested(MAX_VALUE_DEPTH - 1, 1), *([[]] * 1000)]
    assert decode_value(encode_value(value)) == value


@pytest.mark.parametrize("levels", [1000, 100_000])
def test_nesting_past_the_interpreters_own_limit(levels: int) -> None:
    with pytest.raises(ValueSerializationError, match="nested deeper"):
        encode_value(nested(levels, 1))


@pytest.mark.parametrize(("check", "max_bytes", "error"), CHECKS)
def test_names_are_kept_exactly(check: Callable[[object], str], max_bytes: int, error: type[Exception]) -> None:
    for name in ("a", " a ", "A", "a/b:c", "\u200b", "é" * (max_bytes // 2), "x" * max_bytes, "\n\t.", "🔑"):
        assert check(name) == name


@pytest.mark.parametrize(("check", "max_bytes", "error"), CHECKS)
def test_bad_names(check: Callable[[object], str], max_bytes: int, error: type[Exception]) -> None:
    too_long = ["x" * (max_bytes + 1), "é" * (max_bytes // 2) + "éé"]
    for name in ("", " ", "\t\n", "\u3000", "a\0", "\ud800", None, 1, True, b"a", ["a"], *too_long):
        with pytest.raises(error) as caught:
            check(name)
        assert type(caught.value) is error
        json.dumps(caught.value.args)


@given(st.text(max_size=300))
def test_a_name_passes_unchanged_or_is_refused(name: str) -> None:
    try:
        assert check_namespace(name) == name
    except InvalidKeyError:
        surrogate = any("\ud800" <= character <= "\udfff" for character in name)
        assert surrogate or "\0" in name or not name.strip() or len(name.encode()) > 255


@pytest.mark.parametrize(("ttl", "seconds"), [(1, 1.0), (0.001, 0.001), (5e-324, 5e-324), (10**400, MAX_TTL_SECONDS)])
def test_good_ttl(ttl: float, seconds: float) -> None:
    assert check_ttl(ttl) == seconds
    assert isinstance(check_ttl(ttl), float)


def test_no_ttl() -> None:
    assert check_ttl(None) is None


@pytest.mark.parametrize(
    "ttl", [0, -1, 0.0, -0.0, math.nan, math.inf, -math.inf, True, False, "1", [1], Decimal(1), -(10**5000)], ids=type
)
def test_bad_ttl(ttl: object) -> None:
    with pytest.raises(InvalidTTLError, match="ttl_seconds must be a"):
        check_ttl(ttl)


@given(st.integers(INT64_MIN, INT64_MAX))
def test_good_integers(value: int) -> None:
    assert check_integer("delta", value) == value


@pytest.mark.parametrize(
    "value", [True, 1.0, "1", None, INT64_MAX + 1, INT64_MIN - 1, 10**5000, math.nan, [1]], ids=type
)
def test_bad_integers(value: object) -> None:
    with pytest.raises(InvalidRequestError, match=r"^delta must be a"):
        check_integer("delta", value)


def test_fresh_operation_ids_are_uuids_of_version_7_in_order() -> None:
    ids = [new_operation_id() for _ in range(1000)]
    assert len(set(ids)) == len(ids)
    assert {(uuid.UUID(text).version, uuid.UUID(text).variant) for text in ids} == {(7, uuid.RFC_4122)}
    milliseconds = [uuid.UUID(text).int >> 80 for text in ids]
    assert milliseconds == sorted(milliseconds)


@pytest.mark.parametrize(
    ("result", "wanted"),
    [
        (GetResult("n", "k", found=False), {"namespace": "n", "key": "k", "found": False}),
        (GetResult("n", "k", found=True, value=None), {"namespace": "n", "key": "k", "found": True, "value": None}),
        (
            GetResult("n", "k", found=True, value=[0], ttl_seconds=1.5),
            {"namespace": "n", "key": "k", "found": True, "value": [0], "ttl_seconds": 1.5},
        ),
        (SetResult("n", "k", None), {"namespace": "n", "key": "k", "value": None, "replayed": False}),
        (
            SetResult("n", "k", {"a": None}, 2.0, replayed=True),
            {"namespace": "n", "key": "k", "value": {"a": None}, "ttl_seconds": 2.0, "replayed": True},
        ),
        (IncrementResult("n", "k", 0), {"namespace": "n", "key": "k", "value": 0, "replayed": False}),
        (DeleteResult("n", "k", deleted=True), {"namespace": "n", "key": "k", "deleted": True, "replayed": False}),
        (SweepReport(1, 2, 3, complete=True), {"deleted_rows": 1, "freed_bytes": 2, "batches": 3, "complete": True}),
        (PruneReport(1, 2, complete=False), {"deleted_rows": 1, "batches": 2, "complete": False}),
        (
            LedgerUsage(None, 1, 2, None),
            {"namespace": None, "used_bytes": 1, "entry_count": 2, "quota_bytes": None},
        ),
    ],
)
def test_results_as_dicts(result: Any, wanted: dict[str, object]) -> None:
    assert result.to_dict() == wanted
    assert json.loads(json.dumps(result.to_dict())) == wanted


def test_recompute_report_as_a_dict() -> None:
    report = RecomputeReport(2, (LedgerDrift("n", 5, 3, 1, 1),), next_after="n")
    wanted = {
        "checked_namespaces": 2,
        "drifts": [
            {"namespace": "n", "recorded_bytes": 5, "actual_bytes": 3, "recorded_entries": 1, "actual_entries": 1}
        ],
        "next_after": "n",
        "complete": False,
    }
    assert json.loads(json.dumps(report.to_dict())) == wanted
    assert RecomputeReport(2).complete
