"""Histograms with fixed buckets, in which a worker counts durations and sizes, and their quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: Rounded numbers that divide a decade into equal ratios (ISO 3, R10).
_DECADE: Final = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
#: The upper bounds of the buckets of a duration, in seconds. One more bucket holds longer ones. From a millisecond on,
#: each is a quarter above the last: many durations lie just above a round number, such as a timeout of 10 s, and in a
#: wide bucket they would pass for much longer ones.
SECONDS_BOUNDS: Final = (
    *(0.0001, 0.0002, 0.0005),
    *(number / divisor for divisor in (1000, 100, 10, 1) for number in _DECADE),
    *(number * 10 for number in _DECADE[:-1]),
)
#: The upper bounds of the buckets of a number of calls or of a batch's steps.
SIZE_BOUNDS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1000.0)


def quantile(bounds: Sequence[float], counts: Sequence[float], share: float) -> float | None:
    """Return about the value below which a share of the observed values lies: the middle of its bucket.

    Nothing tells where in the bucket it lies, and the middle is never off by more than half of the bucket. Prometheus
    takes values as spread evenly over it, which is off by nearly all of it for the p99 of values that are alike.

    Args:
        bounds: The upper bounds of the buckets, of which the last one has none.
        counts: The number of values in each bucket. The last one counts values above every bound. The difference of two
            reports gives the values in between.
        share: The share, such as 0.5 for the median.

    Returns:
        The value. The largest bound if it lies above that. None if there are no values.
    """
    rank = share * sum(counts)
    if not rank > 0:
        return None
    below, lower = 0.0, 0.0
    for upper, count in zip(bounds, counts, strict=False):
        if count and below + count >= rank:
            return (lower + upper) / 2
        below, lower = below + count, upper
    return lower
