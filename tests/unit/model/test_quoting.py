"""Text from outside in logs and on terminals."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvworker.model import escaped, escaped_json, escaped_lines

# Hypothesis leaves surrogates out of its default alphabet.
_ANY_TEXT = st.text(st.characters())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\n\tb", r"a\r\n\tb"),
        ("\x1b[2J\x07\x00", r"\x1b[2J\x07\x00"),
        ("\x7f\x9b\x85", r"\x7f\x9b\x85"),
        ("\u202eexe.\u2066\u200f", r"\u202eexe.\u2066\u200f"),
        ("\u2028\u2029\ud800", r"\u2028\u2029\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("naïve 日本 😀 \\n", "naïve 日本 😀 \\n"),
    ],
)
def test_what_could_forge_a_line_or_control_a_terminal_is_escaped(text: str, shown: str) -> None:
    assert escaped(text) == shown


@given(_ANY_TEXT)
def test_any_text_becomes_one_printable_line(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    assert escaped(shown) == shown


@given(_ANY_TEXT)
def test_later_lines_of_any_text_are_indented(text: str) -> None:
    first, *others = escaped_lines(text).split("\n")
    assert first.isprintable()
    assert all(line.startswith("  ") and line.isprintable() for line in others)


@given(
    st.recursive(
        st.none() | st.integers() | _ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(_ANY_TEXT, inner)
    )
)
def test_escaped_json_is_printable_and_the_same_document(value: object) -> None:
    text = escaped_json(json.dumps(value, ensure_ascii=False))
    assert text.isprintable()
    # JSON joins two surrogates that form a pair, however they were escaped.
    assert json.loads(text) == json.loads(json.dumps(value))
