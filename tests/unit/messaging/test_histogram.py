"""Quantiles are read from buckets as far as these tell."""

from __future__ import annotations

from bisect import bisect_left

import pytest

from kvworker.messaging.histogram import SECONDS_BOUNDS, SIZE_BOUNDS, quantile

BOUNDS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([4, 0, 0, 0], 0.5, 0.5),
        ([0, 4, 0, 0], 0.5, 1.5),
        ([1, 0, 1, 0], 0.5, 0.5),
        ([1, 0, 1, 0], 0.99, 3.0),
        ([0, 0, 0, 3], 0.5, 4.0),
        ([1, 2, 3, 4], 0.0, None),
        ([0, 0, 0, 0], 0.5, None),
    ],
)
def test_a_quantile_lies_in_its_bucket(counts: list[float], share: float, value: float | None) -> None:
    found = quantile(BOUNDS, counts, share)
    assert found == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize("seconds", [0.00101, 0.0051, 0.0801, 0.5003, 1.002, 5.01, 8.1, 10.01, 30.02, 60.04])
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_equal_durations_just_above_a_round_number_are_shown_as_about_that_number(seconds: float, share: float) -> None:
    counts = [0] * (len(SECONDS_BOUNDS) + 1)
    counts[bisect_left(SECONDS_BOUNDS, seconds)] = 7
    assert quantile(SECONDS_BOUNDS, counts, share) == pytest.approx(seconds, rel=0.14)


def test_bounds_rise() -> None:
    for bounds in (SECONDS_BOUNDS, SIZE_BOUNDS):
        assert list(bounds) == sorted(set(bounds))
    # They are labels, which should be round.
    assert all(len(f"{bound}".replace("0", "").replace(".", "")) <= 3 for bound in SECONDS_BOUNDS)
