"""Canonical JSON: a value survives encoding and decoding, or it is refused."""

from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal
from enum import Enum
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvworker.errors import (
    ValueSerializationError,
)
from kvworker.model import (
    MAX_VALUE_DEPTH,
    EncodedValue,
    JSONValue,
    decode_value,
    encode_value,
)

UTF8_TEXT = st.text(st.characters(codec="utf-8"))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | UTF8_TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(UTF8_TEXT, children, max_size=4),
    max_leaves=20,
)


def nested(levels: int, leaf: object) -> object:
    value = leaf
    for _ in range(levels):
        value = [value]
    return value


def exactly(value: object) -> str:
    """Return text that differs between True and 1, 1.0 and 1, -0.0 and 0.0, and two orders of keys."""
    return repr(value)


@given(JSON_VALUES)
def test_a_value_survives_encoding_and_decoding(value: Any) -> None:
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


class Color(Enum):
    RED = 1


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


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ((1, 2), "it holds an object of type tuple; pass a list: list(...)"),
        ({5}, "it holds an object of type set; pass a list: list(...)"),
        (b"secret", "it holds an object of type bytes; pass text, such as base64"),
        (datetime(2026, 1, 1), "it holds an object of type datetime; pass text: .isoformat()"),
        (Decimal(1), "it holds an object of type Decimal; pass text, str(...), or a float"),
        (uuid4(), "it holds an object of type UUID; pass text: str(...)"),
        (Color.RED, "it holds an object of type Color; pass its .value"),
        (MappingProxyType({}), "it holds an object of type mappingproxy; pass a dict: dict(...)"),
        (object(), "it holds an object of type object; use only None, bool, int, float, str, list and dict"),
        (math.nan, "it holds NaN or Infinity; pass None or a string instead"),
        (10**5000, "it holds an integer of thousands of digits; pass it as text"),
        ({7: "a"}, "a dict in it has a key of type int; JSON's keys are strings: use str(key)"),
        ({("a", 7): "b"}, "a dict in it has a key of type tuple; JSON's keys are strings: use str(key)"),
    ],
    ids=lambda part: type(part).__name__,
)
def test_an_error_says_what_is_wrong_in_a_value_and_what_to_write(part: object, told: str) -> None:
    """It said that JSON would change something in this dict, and Python's own errors named no remedy."""
    for value in (part, [part], {"fine": [1, None, "x", 0.5, True], "a": [{"secret": part}]}):
        with pytest.raises(ValueSerializationError) as caught:
            encode_value(value)
        assert str(caught.value).startswith(f"the value is not JSON: {told}")
        assert "secret" not in str(caught.value)


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


def test_variables_of_common_types_are_json_values() -> None:
    """mypy checks the assignments: ``JSONValue`` is covariant."""
    counts: dict[str, int] = {"a": 1}
    names: list[str] = ["a"]
    nested_lists: dict[str, list[list[float]]] = {"a": [[1.5]]}
    values: list[JSONValue] = [counts, names, nested_lists]
    assert [decode_value(encode_value(value)) for value in values] == [counts, names, nested_lists]


def test_an_encoded_value_is_encoded_once_and_does_not_show_its_value() -> None:
    encoded = EncodedValue.of({"a": ["secret"]})
    assert encoded == EncodedValue({"a": ["secret"]}, '{"a":["secret"]}')
    assert EncodedValue.of(encoded) is encoded
    assert "secret" not in f"{encoded} {encoded!r} {[encoded]}"
    with pytest.raises(ValueSerializationError, match="it holds an object of type EncodedValue; use only None"):
        encode_value([encoded])


def test_a_copy_does_not_follow_its_original() -> None:
    value: dict[str, JSONValue] = {"a": [1]}
    copy = EncodedValue.of(value).copy()
    value["b"] = 2
    assert copy == EncodedValue({"a": [1]}, '{"a":[1]}')


def test_a_decoded_value_is_a_plain_dict_or_list() -> None:
    value = decode_value('{"a":[1]}')
    assert isinstance(value, dict)
    inner = value["a"]
    assert isinstance(inner, list)
    inner.append(2)
    assert value == {"a": [1, 2]}
