"""The overview of a deployment as metrics for Prometheus. It needs the extra ``metrics``.

The only label values that callers chose are the names of the fullest namespaces. Their number is bounded.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kvworker.ops.fleet import Fleet
from kvworker.ops.overview.collector import STORE_PARTS, Overview, OverviewCollector, StoreParts
from kvworker.ops.overview.parts import Part
from kvworker.ops.overview.queues import BrokerState

#: Scrapes within this time get the same numbers, so that many of them cost no more than one.
CACHE_SECONDS: Final = 2.0
#: The most pairs of a version and a pool that workers may have.
_MOST_KINDS: Final = 50

#: The metrics of each adapter's store, and their further labels.
_STORE_METRICS: Final = {
    "store_used_bytes": ("Bytes of values in the store.", ()),
    "store_quota_bytes": ("The quota of the whole store. Absent without one.", ()),
    "store_entries": ("Entries in the store, with those that are not swept yet.", ()),
    "store_namespaces": ("Namespaces that have entries, operation records or an own quota.", ()),
    "store_namespace_limit": ("Namespaces that the store may have.", ()),
    "namespace_fullness_ratio": (
        "The largest share of a limit that one of the fullest namespaces uses.",
        ("namespace",),
    ),
    "namespace_used_bytes": ("Bytes of values in one of the fullest namespaces.", ("namespace",)),
    "namespace_quota_bytes": ("The quota of one of the fullest namespaces.", ("namespace",)),
    "namespace_entries": ("Entries of one of the fullest namespaces.", ("namespace",)),
    "expiring_entries": (
        "Live entries that expire within so many seconds. Each range counts up to 100000.",
        ("within",),
    ),
    "unswept_entries": ("Entries that have expired and are not swept yet, up to 100000.", ()),
    "sweep_lag_seconds": ("How long ago the first entry expired that is not swept yet; 0 without one.", ()),
    "table_bytes": ("Bytes of a table, or of its indexes, with all partitions.", ("table", "part")),
    "table_rows_estimate": ("Rows of a table, as the database estimates.", ("table",)),
    "database_connections": ("Connections to the database of all programs, by state.", ("state",)),
    "database_connection_limit": ("Connections that the database server allows.", ()),
    "database_connections_waiting_for_lock": ("Connections to the database that wait for a lock.", ()),
    "database_blocked_sessions": (
        "Sessions of the store that have waited for a lock on rows for longer than a second.",
        (),
    ),
    "table_locks": (
        "Locks on a whole table that keep its reads or writes waiting, held or awaited, up to 5. Absent without one.",
        ("table",),
    ),
}


class OverviewMetrics(Collector):
    """Makes metrics of an overview when they are scraped. Thread-safe.

    Args:
        collector: Collects the overviews.
    """

    def __init__(self, collector: OverviewCollector) -> None:
        self._collector = collector
        self._lock = threading.Lock()
        self._latest: tuple[Overview, float] | None = None
        self._fresh_until = 0.0

    def describe(self) -> list[Metric]:
        """Describe nothing, so that registering the metrics collects none."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        overview, seconds = self._overview()
        yield _up(overview)
        yield GaugeMetricFamily("kvworker_overview_seconds", "How long it took to read all of this.", seconds)
        if overview.queues.value is not None:
            yield from _queues(overview.queues.value)
        if overview.workers.value is not None:
            yield from _workers(overview.workers.value.fleet)
        families = {
            name: GaugeMetricFamily(f"kvworker_{name}", text, labels=("adapter", *labels))
            for name, (text, labels) in _STORE_METRICS.items()
        }
        for adapter, store in overview.stores.items():
            for name, labels, value in _store(store):
                if value is not None:
                    families[name].add_metric((adapter, *labels), value)
        yield from families.values()

    def _overview(self) -> tuple[Overview, float]:
        with self._lock:
            if self._latest is None or time.monotonic() >= self._fresh_until:
                started = time.monotonic()
                overview = self._collector.collect()
                self._latest = overview, time.monotonic() - started
                self._fresh_until = time.monotonic() + CACHE_SECONDS
            return self._latest


def overview_registry(collector: OverviewCollector) -> CollectorRegistry:
    """Return a registry with the metrics of the overviews that a collector makes."""
    registry = CollectorRegistry()
    registry.register(OverviewMetrics(collector))
    return registry


def _up(overview: Overview) -> Metric:
    family = GaugeMetricFamily(
        "kvworker_up", "1 if this part of the overview could be read, else 0.", labels=("part", "adapter")
    )
    parts: list[tuple[str, str, Part[Any]]] = [("queues", "", overview.queues), ("workers", "", overview.workers)]
    parts += (
        (name, adapter, getattr(store, name)) for adapter, store in overview.stores.items() for name in STORE_PARTS
    )
    for name, adapter, part in parts:
        family.add_metric((name, adapter), not part.problem)
    return family


def _queues(broker: BrokerState) -> Iterator[Metric]:
    depth = GaugeMetricFamily("kvworker_queue_messages", "Messages that wait in a queue.", labels=("queue",))
    age = GaugeMetricFamily(
        "kvworker_queue_oldest_message_seconds",
        "The age of the oldest message in a queue; 0 if it is empty. Absent if nothing tells it, as on RabbitMQ.",
        labels=("queue",),
    )
    consumers = GaugeMetricFamily(
        "kvworker_queue_consumers", "Workers that consume a queue. Absent on Redis.", labels=("queue",)
    )
    for queue in broker.queues:
        depth.add_metric((queue.name,), queue.depth)
        seconds = queue.oldest_seconds if queue.depth else 0.0
        if seconds is not None:
            age.add_metric((queue.name,), seconds)
        if queue.consumers is not None:
            consumers.add_metric((queue.name,), queue.consumers)
    yield from (depth, age, consumers)
    if broker.unacknowledged is not None:
        yield GaugeMetricFamily(
            "kvworker_unacknowledged_messages",
            "Messages that workers have taken and not acknowledged. Absent on RabbitMQ.",
            broker.unacknowledged,
        )
        yield GaugeMetricFamily(
            "kvworker_oldest_unacknowledged_message_seconds",
            "How long ago the first of them was taken; 0 without one. Absent on RabbitMQ.",
            broker.oldest_unacknowledged_seconds or 0.0,
        )


def _workers(fleet: Fleet) -> Iterator[Metric]:
    states = GaugeMetricFamily(
        "kvworker_workers",
        "Workers by state: ready, unready (it says that it cannot serve) or silent (connected without an answer).",
        labels=("state",),
    )
    unready = sum(bool(worker.problem) for worker in fleet.answers)
    counts = {"ready": len(fleet.answers) - unready, "unready": unready, "silent": fleet.silent_count}
    for state, count in counts.items():
        states.add_metric((state,), count)
    kinds = GaugeMetricFamily(
        "kvworker_workers_by_kind", "Workers that answered, by version and pool.", labels=("version", "pool")
    )
    for kind, count in Counter((worker.version, worker.pool) for worker in fleet.answers).most_common(_MOST_KINDS):
        kinds.add_metric(kind, count)
    yield from (states, kinds)


def _store(store: StoreParts) -> Iterator[tuple[str, tuple[str, ...], float | None]]:
    """Yield a metric's name, its labels after the adapter, and its value; None if there is none."""
    if (total := store.total.value) is not None:
        yield "store_used_bytes", (), total.used_bytes
        yield "store_quota_bytes", (), total.quota_bytes
        yield "store_entries", (), total.entry_count
        yield "store_namespaces", (), total.namespace_count
        yield "store_namespace_limit", (), total.namespace_limit
    for ledger in store.fullest.value.ledgers if store.fullest.value is not None else ():
        labels = (str(ledger.namespace),)
        yield "namespace_fullness_ratio", labels, ledger.fullness
        yield "namespace_used_bytes", labels, ledger.used_bytes
        yield "namespace_quota_bytes", labels, ledger.quota_bytes
        yield "namespace_entries", labels, ledger.entry_count
    if (expiry := store.expiry.value) is not None:
        yield from (("expiring_entries", (f"{until:.0f}",), count) for until, count in expiry.cumulative())
        yield "unswept_entries", (), expiry.unswept_count
        yield "sweep_lag_seconds", (), expiry.sweep_lag_seconds
    yield from _database(store)


def _database(store: StoreParts) -> Iterator[tuple[str, tuple[str, ...], float | None]]:
    for table in store.tables.value or ():
        yield "table_bytes", (table.name, "rows"), table.table_bytes
        yield "table_bytes", (table.name, "indexes"), table.index_bytes
        yield "table_rows_estimate", (table.name,), table.row_estimate
    if (found := store.connections.value) is not None:
        other = found.total - found.active - found.idle_in_transaction - found.hidden
        yield "database_connections", ("active",), found.active
        yield "database_connections", ("idle_in_transaction",), found.idle_in_transaction
        yield "database_connections", ("other",), other
        yield "database_connections", ("hidden",), found.hidden
        yield "database_connection_limit", (), found.limit
        yield "database_connections_waiting_for_lock", (), found.waiting_for_lock
        yield "database_blocked_sessions", (), sum(blocker.waiting_count for blocker in found.blockers)
        yield from (
            ("table_locks", (table,), count) for table, count in Counter(lock.table for lock in found.locks).items()
        )
