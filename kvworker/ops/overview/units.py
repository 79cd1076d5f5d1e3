"""Formats sizes, durations and counts for people."""

from __future__ import annotations

from typing import Final

from kvworker.model import MOST_COUNTED, LedgerUsage

_BYTE_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_DURATIONS: Final = ((86_400, "d"), (3600, "h"), (60, "min"))


def bytes_text(count: int) -> str:
    """Format a size with three digits, such as 512 bytes or 1.21 MiB."""
    size, place = float(count), 0
    while abs(size) >= 1024 and place < len(_BYTE_UNITS) - 1:
        size, place = size / 1024, place + 1
    digits = ".3g" if abs(size) < 1000 else ".0f"
    return f"{size:{digits}} {_BYTE_UNITS[place]}"


def duration_text(seconds: float) -> str:
    """Format a duration in its largest unit, such as 0.42 s, 5 min or 2.5 h."""
    for unit_seconds, unit in _DURATIONS:
        if seconds >= unit_seconds:
            return f"{round(seconds / unit_seconds, 1):g} {unit}"
    return f"{seconds * 1000:.3g} ms" if 0 < seconds < 1 else f"{round(seconds, 1):g} s"


def count_text(count: int) -> str:
    """Format a count that stops at ``MOST_COUNTED``."""
    return f"{count:,} or more" if count >= MOST_COUNTED else f"{count:,}"


def fullness_text(usage: LedgerUsage) -> str:
    """Format the largest share of a limit that is used, with the limit, such as 96.0% (records)."""
    limit = f" ({usage.fullest_limit})" if usage.fullest_limit else ""
    return f"{usage.fullness:.1%}{limit}"
