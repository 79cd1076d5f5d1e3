"""docs/explanation/reliability.md has a row for every scenario."""

from __future__ import annotations

import re

from tests.chaos.scenarios import SCENARIOS
from tests.support.documents import ROOT

#: The page describes them in words.
_LONG = {"overload", "soak"}


def test_the_page_shows_every_scenario() -> None:
    text = (ROOT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `([a-z-]+)`: ", text, re.MULTILINE)
    assert sorted(shown) == sorted({scenario.name for scenario in SCENARIOS} - _LONG)
    assert all(f"`{name}`" in text for name in _LONG)
