"""The form of a figure."""

from __future__ import annotations

from typing import TypedDict


class Row(TypedDict):
    """A median, and the median of the floor that was measured beside it, in the same unit.

    ``ratio`` is the median over rounds of the ratio to the floor within a round, so it need not equal
    ``median / floor_median``.
    """

    name: str
    unit: str
    median: float
    floor: str
    floor_median: float
    ratio: float
