"""Metrics of a program that calls the store, in its own Prometheus registry. They need the extra ``metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvworker.errors import extra_needed
from kvworker.messaging.histogram import SECONDS_BOUNDS, SIZE_BOUNDS
from kvworker.messaging.observer import CallEvent, CallObserver

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(extra_needed("kvworker.ops.metrics", "metrics"), name=missing.name) from None

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvworker.messaging.outcomes import Outcome
    from kvworker.tools import Tool

_EVENT_HELP: Final[Mapping[CallEvent, str]] = {
    CallEvent.RESENT: "Messages that were sent again, because the broker or a worker may have lost them.",
    CallEvent.SEND_FAILED: "Attempts to send a message to the broker that failed.",
}


class CallMetrics(CallObserver):
    """Metrics of the calls of any number of stores.

    Make one for a registry, and give it to each store::

        store = KeyValueStore.from_config(observer=CallMetrics())

    They are metrics of prometheus-client, so its multiprocess mode works as for a program's own ones.

    Args:
        registry: Where to register the metrics.

    Raises:
        ValueError: The registry has these metrics already.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._calls = Counter(
            "kvworker_calls",
            "Calls that ended, by how they ended for the caller. Only a success has no reason.",
            ("tool", "outcome", "reason"),
            registry=registry,
        )
        self._seconds = Histogram(
            "kvworker_call_duration_seconds",
            "How long calls took for the caller.",
            ("tool",),
            registry=registry,
            buckets=SECONDS_BOUNDS,
        )
        self._in_flight = Gauge(
            "kvworker_calls_in_flight",
            "Calls that have begun and not ended, those that wait for their turn included.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._coalesced = Histogram(
            "kvworker_coalesced_calls_sent",
            "Calls of each coalesced message that was sent.",
            registry=registry,
            buckets=SIZE_BOUNDS,
        )
        self._events = {
            event: Counter(f"kvworker_{event}", _EVENT_HELP[event], registry=registry) for event in CallEvent
        }
        # Looking a child up by its labels costs more than counting.
        self._calls_by_end: dict[tuple[str, Outcome], Counter] = {}
        self._seconds_by_tool: dict[str, Histogram] = {}

    def call_began(self, tool: Tool) -> None:  # noqa: ARG002 - calls in flight have no label
        """Count a call in flight."""
        self._in_flight.inc()

    def call_ended(self, tool: Tool, outcome: Outcome, seconds: float) -> None:
        """Count a call by its outcome, and its time."""
        self._in_flight.dec()
        name = tool.name
        counter = self._calls_by_end.get((name, outcome))
        if counter is None:
            counter = self._calls_by_end[name, outcome] = self._calls.labels(name, *outcome)
        counter.inc()
        histogram = self._seconds_by_tool.get(name)
        if histogram is None:
            histogram = self._seconds_by_tool[name] = self._seconds.labels(name)
        histogram.observe(seconds)

    def coalesced_message_sent(self, calls: int) -> None:
        """Count a coalesced message and its calls."""
        self._coalesced.observe(calls)

    def happened(self, event: CallEvent, count: int = 1) -> None:
        """Count an event."""
        self._events[event].inc(count)
