"""Counts a worker's work since it started, over all its processes and threads.

The totals lie in memory that the worker's main process shares with the children of its pool. Each process adds to its
own slot, without a system call, and the main process adds the slots up when it is asked. So nothing is lost
when a child is killed, and a child that takes its place adds to the same slot.
"""

from __future__ import annotations

import mmap
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvworker.fork_safety import ForkAware, watch_forks
from kvworker.messaging.histogram import SECONDS_BOUNDS, SIZE_BOUNDS
from kvworker.messaging.observer import Event, MaintenanceReport, MessageReport, Observer, OperationEnd
from kvworker.messaging.outcomes import OUTCOMES, Outcome
from kvworker.tools import TOOLS

#: Slot 0 is the main process's. Children beyond the others would share slots, and some of their counts be lost.
_SLOTS: Final = 1024
_CELL_BYTES: Final = 8
MAINTENANCE_TASKS: Final = ("sweep", "prune", "recompute")
MAINTENANCE_FIELDS: Final = ("runs", "failed", "incomplete", "rows", "seconds")


class _Layout:
    """Gives each number its cell in a slot."""

    def __init__(self) -> None:
        self.size = 0

    def reserve(self, cells: int = 1) -> int:
        """Return the first of so many new cells."""
        self.size += cells
        return self.size - cells

    def histogram(self, bounds: Sequence[float]) -> int:
        """Return the first cell of a histogram: its buckets, and then the sum."""
        return self.reserve(len(bounds) + 2)


_layout = _Layout()
_OPERATIONS: Final = {(tool, outcome): _layout.reserve() for tool in TOOLS for outcome in OUTCOMES}
_EXECUTION: Final = {tool: _layout.histogram(SECONDS_BOUNDS) for tool in TOOLS}
_QUEUE: Final = {tool: _layout.histogram(SECONDS_BOUNDS) for tool in TOOLS}
_REFUSED_STEPS: Final = {reason: _layout.reserve() for reason in {outcome.reason: 0 for outcome in OUTCOMES} if reason}
_BATCHES: Final = _layout.histogram(SIZE_BOUNDS)
_COALESCED: Final = _layout.histogram(SIZE_BOUNDS)
_EVENTS: Final = {event: _layout.reserve() for event in Event}
_MAINTENANCE: Final = {(task, name): _layout.reserve() for task in MAINTENANCE_TASKS for name in MAINTENANCE_FIELDS}


class Totals(Observer, ForkAware):
    """Counts what the processes of a worker report. Thread-safe, and safe across forks of the pool."""

    def __init__(self) -> None:
        # First a flag for each slot, so that a look at all of them touches no memory of those that are not used.
        self._cells = memoryview(mmap.mmap(-1, _SLOTS * (1 + _layout.size) * _CELL_BYTES)).cast("d")
        self._lock = threading.Lock()
        self.use_slot(0)
        watch_forks(self)

    def use_slot(self, number: int) -> None:
        """Add to this slot from now on. No other process may add to it.

        Args:
            number: 0 for the main process, and 1 more than its index in the pool for a child.
        """
        slot = number % _SLOTS
        self._start = _SLOTS + slot * _layout.size
        self._cells[slot] = 1

    def after_fork_in_child(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    def message_ended(self, report: MessageReport) -> None:
        """Count a message's operations, how long it waited, and how long it took."""
        counts: dict[tuple[str, Outcome], int] = {}
        for operation in report.operations:
            end = operation.tool.name, operation.outcome
            counts[end] = counts.get(end, 0) + 1
        with self._lock:
            for (tool, outcome), count in counts.items():
                self._add(_OPERATIONS[tool, outcome], count)
                self._observe(_EXECUTION[tool], SECONDS_BOUNDS, report.seconds, count)
                if report.queue_seconds is not None:
                    self._observe(_QUEUE[tool], SECONDS_BOUNDS, report.queue_seconds, count)
                if tool == "kv_batch":
                    self._count_batch(report.operations[0])
            if report.coalesced:
                self._observe(_COALESCED, SIZE_BOUNDS, report.coalesced)

    def _count_batch(self, operation: OperationEnd) -> None:
        if operation.request is not None:
            self._observe(_BATCHES, SIZE_BOUNDS, len(operation.request.arguments["operations"]))
        for outcome in operation.refused_steps:
            self._add(_REFUSED_STEPS[outcome.reason])

    def maintenance_ended(self, report: MaintenanceReport) -> None:
        """Count a run of a periodic task, and what it did."""
        done = {
            "runs": 1,
            "failed": report.failed,
            "incomplete": not (report.failed or report.complete),
            "rows": report.rows,
            "seconds": report.seconds,
        }
        with self._lock:
            for name, amount in done.items():
                self._add(_MAINTENANCE[report.task, name], amount)

    def happened(self, event: Event, count: int = 1) -> None:
        """Count an event."""
        with self._lock:
            self._add(_EVENTS[event], count)

    def _add(self, cell: int, amount: float = 1) -> None:
        self._cells[self._start + cell] += amount

    def _observe(self, cell: int, bounds: Sequence[float], value: float, count: int = 1) -> None:
        self._add(cell + bisect_left(bounds, value), count)
        self._add(cell + len(bounds) + 1, value * count)

    def report(self) -> dict[str, Any]:
        """Return the totals of all processes as JSON-able data.

        Returns:
            A dict without zeros, so a new worker's is almost empty:

            ``operations``: a list of ``{"tool", "outcome", "reason", "count"}``. ``kvworker.messaging.outcomes`` has
            the outcomes and reasons.

            ``execution_seconds`` and ``queue_seconds``: a histogram by tool. The first holds every operation, and the
            second those whose message tells when its call was made. A histogram is ``{"sum", "counts"}``. ``counts``
            has a number for each bucket of ``SECONDS_BOUNDS`` in ``kvworker.messaging.histogram``, and one more for
            longer durations; it is not cumulative. ``quantile`` there reads it.

            ``batch_steps`` and ``coalesced_calls``: a histogram with ``SIZE_BOUNDS``, of the steps of each ``kv_batch``
            and the calls of each coalesced message.

            ``refused_steps``: a number by reason, of the steps that batches which are not atomic left out.

            ``events``: a number by each event's name (``kvworker.messaging.observer.Event``).

            ``maintenance``: for ``sweep``, ``prune`` and ``recompute`` the numbers ``runs``, ``failed``,
            ``incomplete`` (stopped by the time budget), ``rows`` and ``seconds``.
        """
        cells = self._sums()
        return {
            "operations": [
                {"tool": tool, "outcome": outcome.name, "reason": outcome.reason, "count": int(cells[cell])}
                for (tool, outcome), cell in _OPERATIONS.items()
                if cells[cell]
            ],
            "execution_seconds": _histograms(cells, _EXECUTION, SECONDS_BOUNDS),
            "queue_seconds": _histograms(cells, _QUEUE, SECONDS_BOUNDS),
            "batch_steps": _histogram(cells, _BATCHES, SIZE_BOUNDS),
            "coalesced_calls": _histogram(cells, _COALESCED, SIZE_BOUNDS),
            "refused_steps": {reason: int(cells[cell]) for reason, cell in _REFUSED_STEPS.items() if cells[cell]},
            "events": {event.value: int(cells[cell]) for event, cell in _EVENTS.items() if cells[cell]},
            "maintenance": _maintenance(cells),
        }

    def _sums(self) -> list[float]:
        starts = (_SLOTS + slot * _layout.size for slot in range(_SLOTS) if self._cells[slot])
        slots = (self._cells[start : start + _layout.size] for start in starts)
        return [sum(column) for column in zip(*slots, strict=True)]


def _histogram(cells: Sequence[float], start: int, bounds: Sequence[float]) -> dict[str, Any]:
    *counts, total = cells[start : start + len(bounds) + 2]
    return {"sum": round(total, 6), "counts": [int(count) for count in counts]}


def _histograms(cells: Sequence[float], starts: Mapping[str, int], bounds: Sequence[float]) -> dict[str, Any]:
    found = {name: _histogram(cells, start, bounds) for name, start in starts.items()}
    return {name: histogram for name, histogram in found.items() if any(histogram["counts"])}


def _maintenance(cells: Sequence[float]) -> dict[str, dict[str, float]]:
    tasks = {task: {name: cells[_MAINTENANCE[task, name]] for name in MAINTENANCE_FIELDS} for task in MAINTENANCE_TASKS}
    return {task: numbers for task, numbers in tasks.items() if numbers["runs"]}
