"""Histograms with fixed buckets, in which a worker counts durations and sizes, and their quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: The upper bounds of the buckets of a duration, in seconds. One more bucket holds longer ones.
SECONDS_BOUNDS: Final = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
#: The upper bounds of the buckets of a number of calls or of a batch's steps.
SIZE_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0)


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """Return the value below which a share of the observed values lies, as far as the buckets tell.

    Args:
        bounds: The upper bounds of the buckets, of which the last one has none.
        counts: The number of values in each bucket. The last one counts values above every bound. The difference of two
            reports gives the values in between.
        share: The share, such as 0.5 for the median.

    Returns:
        The value, with the values of a bucket spread evenly over it. The largest bound if it lies above that. None if
        there are no values.
    """
    rank = share * sum(counts)
    if not rank > 0:
        return None
    below, lower = 0.0, 0.0
    for upper, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below, lower = below + count, upper
    return lower
