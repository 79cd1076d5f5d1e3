"""Line charts as points for inline SVG, each with a text that says the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kvworker.ops.dashboard.history import Sample
from kvworker.ops.overview.units import duration_text

WIDTH: Final = 300
HEIGHT: Final = 80
_MOST_ROWS: Final = 12
_MARGIN: Final = 2


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: Its title.
        summary: The same as text.
        lines: The points of each unbroken line, for ``polyline``.
        rows: Some of its moments and values, as text.
        values: The values at its upper and at its lower edge, as text; None without any value.
        times: The times at its left and at its right edge.
    """

    title: str
    summary: str
    lines: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    values: tuple[str, str] | None = None
    times: tuple[str, str] = ("", "")


def charts_of(samples: Sequence[Sample]) -> list[Chart]:
    """Make the charts of the last hour."""
    return [
        _chart("Operations per second", samples, lambda each: each.operations_per_second, _number),
        _chart("Median duration", samples, lambda each: each.median_seconds, duration_text),
        _chart("99th percentile of the duration", samples, lambda each: each.slowest_seconds, duration_text),
        _chart("Waiting messages", samples, lambda each: each.depth, _number),
        _chart("Age of the oldest message", samples, lambda each: each.oldest_seconds, duration_text),
        _chart("Refused operations", samples, lambda each: each.refused, _number),
        _chart("Unknown and failed operations", samples, lambda each: each.unknown, _number),
        _chart("Dropped late per second", samples, lambda each: each.late_per_second, _number),
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def _chart(
    title: str, samples: Sequence[Sample], read: Callable[[Sample], float | None], shown: Callable[[float], str]
) -> Chart:
    points = [(sample.at, read(sample)) for sample in samples]
    known = [(at, value) for at, value in points if value is not None]
    if not known:
        return Chart(title, "nothing is known yet", (), ())
    values = [value for _, value in known]
    span = duration_text(max(0.0, points[-1][0] - points[0][0]))
    newest = "now" if points[-1][1] is not None else f"last known at {_clock(known[-1][0])}:"
    summary = f"{newest} {shown(values[-1])}, at least {shown(min(values))} and at most {shown(max(values))} in {span}"
    step = max(1, len(known) // _MOST_ROWS)
    rows = tuple((_clock(at), shown(value)) for at, value in known[::-step])
    # Without a height of its own, a chart of zeros is one of the height 1.
    upper = max(values) or 1
    times = _clock(points[0][0]), _clock(points[-1][0])
    return Chart(title, summary, _lines(points, upper), rows, (shown(upper), shown(0)), times)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _lines(points: Sequence[tuple[float, float | None]], upper: float) -> tuple[str, ...]:
    """Return the points of each line; a moment without a value interrupts it."""
    begin, end = points[0][0], points[-1][0]
    lines: list[list[str]] = [[]]
    for at, value in points:
        if value is None:
            lines.append([])
            continue
        x = (at - begin) / ((end - begin) or 1) * WIDTH
        y = HEIGHT - _MARGIN - value / upper * (HEIGHT - 2 * _MARGIN)
        lines[-1].append(f"{x:.1f},{y:.1f}")
    # One point makes no line, so it becomes a short one.
    return tuple(" ".join(line if len(line) > 1 else line * 2) for line in lines if line)
