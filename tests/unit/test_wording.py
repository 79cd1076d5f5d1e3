from __future__ import annotations

import pytest

from kvworker.wording import counted, did_you_mean


@pytest.mark.parametrize(("count", "text"), [(0, "0 entries"), (1, "1 entry"), (2, "2 entries"), (-1, "-1 entries")])
def test_a_number_and_its_noun_agree(count: int, text: str) -> None:
    assert counted(count, "entry", "entries") == text


def test_most_plurals_only_have_an_s() -> None:
    assert [counted(count, "byte") for count in (1, 2)] == ["1 byte", "2 bytes"]


def test_only_a_word_that_is_close_is_suggested() -> None:
    known = ("postgres", "sqlite")
    assert [did_you_mean(name, known) for name in ("postgress", "redis")] == ["did you mean postgres?", ""]
