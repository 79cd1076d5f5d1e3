"""Quantiles are read from buckets as far as these tell."""

from __future__ import annotations

import pytest

from kvworker.messaging.histogram import SECONDS_BOUNDS, SIZE_BOUNDS, quantile

BOUNDS = (1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([4, 0, 0, 0], 0.5, 0.5),
        ([0, 4, 0, 0], 0.5, 1.5),
        ([1, 0, 1, 0], 0.5, 1.0),
        ([1, 0, 1, 0], 0.99, 3.96),
        ([0, 0, 0, 3], 0.5, 4.0),
        ([1, 2, 3, 4], 0.0, None),
        ([0, 0, 0, 0], 0.5, None),
    ],
)
def test_a_quantile_lies_in_its_bucket(counts: list[float], share: float, value: float | None) -> None:
    found = quantile(BOUNDS, counts, share)
    assert found == (None if value is None else pytest.approx(value))


def test_bounds_rise() -> None:
    for bounds in (SECONDS_BOUNDS, SIZE_BOUNDS):
        assert list(bounds) == sorted(set(bounds))
