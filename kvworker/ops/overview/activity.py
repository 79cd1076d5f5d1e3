"""The workers' activity: the sum of the totals that they report, and the difference between two of their reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from kvworker.messaging.histogram import SECONDS_BOUNDS, quantile
from kvworker.messaging.observer import Event
from kvworker.messaging.outcomes import OUTCOMES
from kvworker.ops.fleet import Fleet, WorkerAnswer
from kvworker.tools import TOOLS
from kvworker.worker.totals import MAINTENANCE_FIELDS, MAINTENANCE_TASKS

#: A number of a worker's totals by its place in them.
_Counts: TypeAlias = Counter[tuple[str, ...]]
Histogram: TypeAlias = Literal["execution_seconds", "queue_seconds"]

_HISTOGRAMS: Final[tuple[Histogram, ...]] = ("execution_seconds", "queue_seconds")
_BUCKETS: Final = tuple(map(str, range(len(SECONDS_BOUNDS) + 1)))
_OUTCOMES: Final = frozenset((outcome.name, outcome.reason) for outcome in OUTCOMES)
#: A worker cannot have counted a larger number.
_MOST: Final = 2**53


@dataclass(frozen=True)
class Activity:
    """The workers' activity over some time.

    Attributes:
        seconds: The length of that time.
        counts: Their counts, by the place in their totals.
    """

    seconds: float
    counts: Mapping[tuple[str, ...], float]

    @property
    def operations(self) -> int:
        """The number of operations that ended."""
        return self._sum("operations")

    @property
    def per_second(self) -> float:
        """The operations of a second."""
        return self.operations / self.seconds if self.seconds > 0 else 0.0

    @property
    def late(self) -> int:
        """The number of messages and operations that waited in the queue for too long, and were dropped."""
        return self.event(Event.LATE_DROPPED) + self.ended("expired")

    @property
    def late_per_second(self) -> float:
        """Those of a second."""
        return self.late / self.seconds if self.seconds > 0 else 0.0

    def ended(self, *outcomes: str) -> int:
        """Return how many operations had one of these outcomes."""
        return int(sum(count for name, count in self.counts.items() if name[0] == "operations" and name[2] in outcomes))

    def reasons(self) -> dict[tuple[str, str], int]:
        """Return the number of operations without success, by outcome and reason."""
        found: Counter[tuple[str, str]] = Counter()
        for name, count in self.counts.items():
            if name[0] == "operations" and name[3]:
                found[name[2], name[3]] += int(count)
        return dict(found)

    def quantile(self, histogram: Histogram, share: float) -> float | None:
        """Return the seconds below which a share of the operations lies; None without any."""
        buckets = [0.0] * len(_BUCKETS)
        for name, count in self.counts.items():
            if name[0] == histogram:
                buckets[int(name[2])] += count
        return quantile(SECONDS_BOUNDS, buckets, share)

    def event(self, event: Event) -> int:
        """Return how often an event happened."""
        return int(self.counts.get(("events", event.value), 0))

    def incidents(self) -> dict[str, int]:
        """Return how often each event happened that did happen, by its name for people.

        Drifts are left out: they say something about the store, not about the workers.
        """
        others = (event for event in Event if event not in {Event.LATE_DROPPED, Event.DRIFT})
        counts = {"dropped late": self.late, **{event.value.replace("_", " "): self.event(event) for event in others}}
        return {name: count for name, count in counts.items() if count}

    def maintenance(self, task: str, name: str) -> float:
        """Return a number of a periodic task, such as the rows that a sweep deleted."""
        return self.counts.get(("maintenance", task, name), 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return a summary as JSON-able data."""
        shares = {"p50": 0.5, "p99": 0.99}
        return {
            "seconds": self.seconds,
            "operations": self.operations,
            "operations_per_second": self.per_second,
            **{kind: {name: self.quantile(kind, share) for name, share in shares.items()} for kind in _HISTOGRAMS},
            "unsuccessful": [
                {"outcome": outcome, "reason": reason, "count": count}
                for (outcome, reason), count in sorted(self.reasons().items())
            ],
            "events": {event.value: self.event(event) for event in Event},
            "maintenance": {
                task: {name: self.maintenance(task, name) for name in MAINTENANCE_FIELDS} for task in MAINTENANCE_TASKS
            },
        }

    def _sum(self, kind: str) -> int:
        return int(sum(count for name, count in self.counts.items() if name[0] == kind))


def activity_since_start(fleet: Fleet) -> Activity:
    """Return what the workers have done since they started."""
    counts: _Counts = Counter()
    for worker in fleet.answers:
        counts.update(_counts_of(worker))
    return Activity(max((worker.uptime_seconds for worker in fleet.answers), default=0.0), counts)


class ActivityMeter:
    """Measures what the workers did between two of their answers."""

    def __init__(self) -> None:
        self._before: dict[str, _Counts] = {}
        self._at: float | None = None

    def measure(self, fleet: Fleet, now: float) -> Activity | None:
        """Return what the workers have done since the last measurement.

        A worker that did not answer at that time is left out, unless it has started since.

        Args:
            fleet: The workers' answers.
            now: When they answered, by the monotonic clock.

        Returns:
            Their activity; None at the first measurement.
        """
        before, at = self._before, self._at
        counts = {f"{worker.name} {worker.state.get('started_at')}": _counts_of(worker) for worker in fleet.answers}
        self._before, self._at = counts, now
        if at is None:
            return None
        young = {
            f"{worker.name} {worker.state.get('started_at')}"
            for worker in fleet.answers
            if worker.uptime_seconds < now - at
        }
        grown: _Counts = Counter()
        for name, reached in counts.items():
            if name in before or name in young:
                grown.update(reached - before.get(name, Counter()))
        return Activity(now - at, grown)


def _counts_of(worker: WorkerAnswer) -> _Counts:
    """Return a worker's counts. Anyone who reaches the broker may have written them, so drop unknown names."""
    totals = _mapping(worker.state.get("totals"))
    counts: _Counts = Counter()
    for name, count in (*_operations(totals), *_histograms(totals), *_others(totals)):
        if isinstance(count, int | float) and not isinstance(count, bool) and 0 < count < _MOST:
            counts[name] += count  # type: ignore[assignment]
    return counts


def _operations(totals: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], Any]]:
    listed = totals.get("operations")
    for each in listed if isinstance(listed, list) else ():
        tool, outcome, reason = (str(_mapping(each).get(name)) for name in ("tool", "outcome", "reason"))
        if tool in TOOLS and (outcome, reason) in _OUTCOMES:
            yield ("operations", tool, outcome, reason), each.get("count")


def _histograms(totals: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], Any]]:
    for kind in _HISTOGRAMS:
        for tool in TOOLS:
            counts = _mapping(_mapping(totals.get(kind)).get(tool)).get("counts")
            if isinstance(counts, list):
                yield from (((kind, tool, bucket), count) for bucket, count in zip(_BUCKETS, counts, strict=False))


def _others(totals: Mapping[str, Any]) -> Iterable[tuple[tuple[str, ...], Any]]:
    events, maintenance = _mapping(totals.get("events")), _mapping(totals.get("maintenance"))
    yield from ((("events", event.value), events.get(event.value)) for event in Event)
    for task in MAINTENANCE_TASKS:
        numbers = _mapping(maintenance.get(task))
        yield from ((("maintenance", task, name), numbers.get(name)) for name in MAINTENANCE_FIELDS)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
