from __future__ import annotations

import pytest

from kvworker.model import MOST_COUNTED
from kvworker.ops.overview.units import bytes_text, count_text, duration_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1_048_576, "1 MiB"),
        (1_300_000, "1.24 MiB"),
        (1_048_000, "1023 KiB"),
        (5 * 2**50, "5120 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (0.0012, "1.2 ms"), (1, "1 s"), (59.94, "59.9 s"), (60, "1 min"), (5400, "1.5 h"), (604_800, "7 d")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_count_that_stopped_says_so() -> None:
    assert count_text(MOST_COUNTED - 1) == "99,999"
    assert count_text(MOST_COUNTED) == "100,000 or more"
