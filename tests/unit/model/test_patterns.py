"""The namespaces that a pattern of a persona matches."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvworker.model.patterns import matches

characters = st.sampled_from("ab.*[]\n")


@given(st.text(characters, max_size=8), st.text(characters, max_size=12))
def test_a_star_matches_any_run_and_all_else_itself(pattern: str, name: str) -> None:
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert matches(pattern, name) is bool(re.fullmatch(expression, name, re.DOTALL))


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        ("team.*", "team.", True),
        ("team.*", "team", False),
        ("team.*", "teamx", False),
        ("team.*", "my.team.a", False),
        ("*.log", "a.b.log", True),
        ("a*a", "a", False),
        ("*", "Any thing\n", True),
        ("t?am", "team", False),
        ("[ab]", "a", False),
        ("Team", "team", False),
    ],
)
def test_patterns(pattern: str, name: str, is_match: bool) -> None:
    assert matches(pattern, name) is is_match


def test_a_pattern_of_many_stars_is_fast() -> None:
    assert not matches("*a" * 100 + "*b", "a" * 255)
