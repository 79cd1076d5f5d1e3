"""A worker's metrics for Prometheus: a view on its status. It needs the extra ``metrics``.

No label holds a namespace, a key or anything else without a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from kvworker.messaging.histogram import SECONDS_BOUNDS, SIZE_BOUNDS
from kvworker.messaging.observer import Event
from kvworker.messaging.outcomes import OUTCOMES
from kvworker.tools import TOOLS
from kvworker.worker.totals import MAINTENANCE_TASKS

_EVENT_HELP: Final[Mapping[Event, str]] = {
    Event.REDELIVERED: "Messages that were delivered again, because a worker was lost with them.",
    Event.RETRIED: "Further attempts of operations whose database could not serve.",
    Event.DATABASE_FAILED: "Operations and coalesced messages whose database could not serve at first.",
    Event.LATE_DROPPED: "Messages dropped because they waited in the queue for too long.",
    Event.MALFORMED_REFUSED: "Messages refused because they cannot be run.",
    Event.BROKER_LOST: "Connections to the broker that were lost.",
    Event.BROKER_REFUSED: "Refusals by the broker of what the worker needs to consume.",
    Event.RESULT_NOT_STORED: "Results that could not be stored, whose messages went back to the queue.",
    Event.PROCESS_LOST: "Child processes of the pool that ended in the middle of a message.",
    Event.CALL_LEFT_OUT: "Calls of coalesced messages that had to be sent again individually.",
    Event.DRIFT: "Ledgers that a recompute found wrong and corrected.",
}
#: The outcomes of maintenance runs that did not end as they should.
_UNFINISHED: Final = ("failed", "incomplete")


class WorkerCollector(Collector):
    """Makes metrics of a worker's status when they are scraped.

    Args:
        name: The worker's name.
        status: Returns what ``QuietWorker.status`` describes.
    """

    def __init__(self, name: str, status: Callable[[], Mapping[str, Any]]) -> None:
        self._name = name
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield every metric of the worker."""
        status = self._status()
        yield from _state(self._name, status)
        yield from _connections(status["connections"])
        totals = status["totals"]
        yield _operations(totals["operations"])
        yield _by_tool(
            "kvworker_operation_duration_seconds",
            "How long operations took in the worker, retries included.",
            totals["execution_seconds"],
        )
        yield _by_tool(
            "kvworker_queue_wait_seconds",
            "How long messages waited, from the call until the worker began. Facades' messages only.",
            totals["queue_seconds"],
        )
        yield _sizes("kvworker_batch_steps", "Steps of each kv_batch.", totals["batch_steps"])
        yield _sizes("kvworker_coalesced_calls", "Calls of each coalesced message.", totals["coalesced_calls"])
        yield _refused_steps(totals["refused_steps"])
        for event in Event:
            yield CounterMetricFamily(f"kvworker_{event}", _EVENT_HELP[event], totals["events"].get(event, 0))
        yield from _maintenance(totals["maintenance"])


def _state(name: str, status: Mapping[str, Any]) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "kvworker_worker_info", "1, with what the worker is.", labels=("worker", "version", "pool")
    )
    info.add_metric((name, status["version"], status["pool"]), 1)
    yield info
    for metric, documentation, value in (
        ("start_time_seconds", "When the worker started, in seconds since the epoch.", status["started_at"]),
        ("ready", "1 if the worker can serve, 0 if it consumes nothing.", not status["problem"]),
        ("slots", "Messages that the worker's pool can run at once.", status["concurrency"]),
        ("active_messages", "Messages that the worker runs now.", status["active"]),
        ("reserved_messages", "Messages that the worker holds, those that it runs included.", status["reserved"]),
    ):
        yield GaugeMetricFamily(f"kvworker_worker_{metric}", documentation, float(value))


def _connections(by_adapter: Mapping[str, Mapping[str, int | None]]) -> Iterator[Metric]:
    connections = GaugeMetricFamily(
        "kvworker_worker_database_connections",
        "Connections of the worker's main process to the database, by state. Those of child processes are not counted.",
        labels=("adapter", "state"),
    )
    limits = GaugeMetricFamily(
        "kvworker_worker_database_connection_limit",
        "The most connections that the main process opens. Absent without a limit.",
        labels=("adapter",),
    )
    for adapter, use in by_adapter.items():
        for state in ("busy", "idle"):
            connections.add_metric((adapter, state), use[state] or 0)
        if use["limit"] is not None:
            limits.add_metric((adapter,), use["limit"])
    yield from (connections, limits)


def _operations(counted: Sequence[Mapping[str, Any]]) -> Metric:
    family = CounterMetricFamily(
        "kvworker_operations",
        "Operations that ended, by how they ended. Only a success has no reason.",
        labels=("tool", "outcome", "reason"),
    )
    counts = {(each["tool"], each["outcome"], each["reason"]): each["count"] for each in counted}
    # A counter that first appears when it is 1 looks like one that never changed. So each tool in use has all of its.
    zeros = {(tool, *outcome): 0 for tool in {each["tool"] for each in counted} for outcome in _outcomes(tool)}
    for labels, count in sorted({**zeros, **counts}.items()):
        family.add_metric(labels, count)
    return family


def _outcomes(tool: str) -> Iterator[tuple[str, str]]:
    absent = {"read"} if TOOLS[tool].writes else {"applied", "replayed", "unknown", "refused"}
    return (each for each in OUTCOMES if each.name not in {*absent, "unsent"} and each.reason != "interrupted")


def _by_tool(name: str, documentation: str, histograms: Mapping[str, Mapping[str, Any]]) -> Metric:
    family = HistogramMetricFamily(name, documentation, labels=("tool",))
    for tool, histogram in histograms.items():
        family.add_metric((tool,), _buckets(SECONDS_BOUNDS, histogram), histogram["sum"])
    return family


def _sizes(name: str, documentation: str, histogram: Mapping[str, Any]) -> Metric:
    return HistogramMetricFamily(name, documentation, _buckets(SIZE_BOUNDS, histogram), histogram["sum"])


def _buckets(bounds: Sequence[float], histogram: Mapping[str, Any]) -> list[tuple[str, float]]:
    names = [*map(floatToGoString, bounds), "+Inf"]
    return list(zip(names, accumulate(histogram["counts"]), strict=True))


def _refused_steps(counts: Mapping[str, int]) -> Metric:
    documentation = "Steps that batches left out because they were refused. Pipelines send such batches."
    family = CounterMetricFamily("kvworker_refused_batch_steps", documentation, labels=("reason",))
    reasons = sorted({outcome.reason for outcome in OUTCOMES if outcome.name == "refused"} | counts.keys())
    for reason in reasons:
        family.add_metric((reason,), counts.get(reason, 0))
    return family


def _maintenance(tasks: Mapping[str, Mapping[str, float]]) -> Iterator[Metric]:
    runs = CounterMetricFamily(
        "kvworker_maintenance_runs", "Runs of the periodic tasks, by how they ended.", labels=("task", "outcome")
    )
    rows = CounterMetricFamily(
        "kvworker_maintenance_rows",
        "Rows that sweeps and prunes deleted, and ledgers that recomputes checked.",
        labels=("task",),
    )
    seconds = CounterMetricFamily("kvworker_maintenance_seconds", "How long the periodic tasks ran.", labels=("task",))
    for task in MAINTENANCE_TASKS:
        done = tasks.get(task) or dict.fromkeys(("runs", "rows", "seconds", *_UNFINISHED), 0)
        for outcome in _UNFINISHED:
            runs.add_metric((task, outcome), done[outcome])
        runs.add_metric((task, "complete"), done["runs"] - sum(done[outcome] for outcome in _UNFINISHED))
        rows.add_metric((task,), done["rows"])
        seconds.add_metric((task,), done["seconds"])
    yield from (runs, rows, seconds)


def worker_registry(name: str, status: Callable[[], Mapping[str, Any]]) -> CollectorRegistry:
    """Return a registry with a worker's metrics and those of its main process. Arguments are those of the collector."""
    registry = CollectorRegistry()
    registry.register(WorkerCollector(name, status))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry
