"""Recent history: overviews that a thread collects at an interval, and the numbers of the last hour."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvworker.ops.overview.activity import Activity
from kvworker.ops.overview.collector import Overview, OverviewCollector

logger = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 1.0
#: An hour of samples.
_MOST_SAMPLES: Final = 720


@dataclass(frozen=True)
class Sample:
    """The numbers of one overview; None where nothing told them.

    Attributes:
        at: When it was taken, in seconds since the epoch.
        operations_per_second: The rate at which operations ended.
        median_seconds: Half of them took less than this.
        slowest_seconds: All but 1 % of them took less than this.
        depth: The messages that waited in the queue of operations.
        oldest_seconds: The age of the oldest one.
        refused: The operations since the sample before that were refused, denied or invalid.
        unknown: Those whose outcome is unknown, or that failed.
        late_per_second: The rate at which messages were dropped because they waited for too long.
    """

    at: float
    operations_per_second: float | None = None
    median_seconds: float | None = None
    slowest_seconds: float | None = None
    depth: float | None = None
    oldest_seconds: float | None = None
    refused: float | None = None
    unknown: float | None = None
    late_per_second: float | None = None

    @classmethod
    def of(cls, overview: Overview) -> Sample:
        """Take the numbers of an overview."""
        workers, broker = overview.workers.value, overview.queues.value
        recent = workers.recent if workers is not None else None
        queue = broker.queues[0] if broker is not None else None
        return cls(
            overview.taken_at,
            *_numbers(recent),
            depth=queue.depth if queue else None,
            oldest_seconds=(queue.oldest_seconds if queue.depth else 0.0) if queue else None,
            refused=recent.ended("refused", "denied", "invalid") if recent else None,
            unknown=recent.ended("unknown", "failed") if recent else None,
            late_per_second=recent.late_per_second if recent else None,
        )


def _numbers(recent: Activity | None) -> tuple[float | None, float | None, float | None]:
    if recent is None:
        return None, None, None
    return recent.per_second, recent.quantile("execution_seconds", 0.5), recent.quantile("execution_seconds", 0.99)


class History:
    """Collects an overview at each interval, in its own thread, and keeps the numbers of the last hour.

    Args:
        collector: Collects the overviews.
        interval_seconds: The pause between two of them.
    """

    def __init__(self, collector: OverviewCollector, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._collector = collector
        self._interval_seconds = interval_seconds
        self._samples: deque[Sample] = deque(maxlen=_MOST_SAMPLES)
        self._latest: Overview | None = None
        self._has_first = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvworker-dashboard-history", daemon=True)

    def start(self) -> None:
        """Begin to collect."""
        self._thread.start()

    def stop(self) -> None:
        """Stop collecting. It waits for a moment for an overview that is being collected."""
        self._stopping.set()
        self._thread.join(_STOP_SECONDS)

    def latest(self) -> Overview:
        """Return the newest overview. Waits for the first one."""
        self._has_first.wait()
        assert self._latest is not None  # noqa: S101 - it is set before the event
        return self._latest

    def samples(self) -> Sequence[Sample]:
        """Return the numbers of the last hour, the oldest first."""
        return tuple(self._samples)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                overview = self._collector.collect()
            except Exception:
                logger.exception("no overview")
                overview = Overview(time.time())
            self._samples.append(Sample.of(overview))
            self._latest = overview
            self._has_first.set()
            self._stopping.wait(self._interval_seconds)
