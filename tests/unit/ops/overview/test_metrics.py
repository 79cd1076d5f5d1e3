"""The overview as metrics."""

from __future__ import annotations

import re
from typing import Any, cast

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kvworker.model import (
    BlockingSession,
    DatabaseConnections,
    ExpiringEntries,
    ExpiryReport,
    LedgerUsage,
    TableLock,
    TableSize,
    UsagePage,
)
from kvworker.ops.fleet import Fleet, WorkerAnswer
from kvworker.ops.overview.collector import Overview, OverviewCollector, StoreParts, WorkersState
from kvworker.ops.overview.metrics import overview_registry
from kvworker.ops.overview.parts import Part
from kvworker.ops.overview.queues import BrokerState, QueueState
from tests.support.documents import ROOT

HOSTILE = '"}\n\\evil{ü'
FLEET = Fleet((WorkerAnswer("a", "", "1.2.3", "prefork"), WorkerAnswer("b", "no database", "1.2.3", "prefork")), 1)
LOCK = TableLock("kv_entries", "ShareLock", 5, "u", "p", 1.5)
BLOCKER = BlockingSession(6, "u", "p", 1.5, 2, 3.0)
STORE = StoreParts(
    Part(LedgerUsage(None, 70, 7, 1000, namespace_count=2, namespace_limit=10)),
    Part(UsagePage((LedgerUsage(HOSTILE, 60, 6, 100),), 2)),
    Part(ExpiryReport(3, 4.5, (ExpiringEntries(0, 60, 1), ExpiringEntries(60, 3600, 2)))),
    Part(DatabaseConnections(9, 1, 2, 4, 3, 100, (LOCK, LOCK), (BLOCKER, BLOCKER))),
    Part((TableSize("kv_entries", 8192, 16384, 7), TableSize("database", 4096))),
)
QUEUES = (QueueState("kv", 5, 12.5), QueueState("kv.maintenance", 0, consumers=2))
OVERVIEW = Overview(1.0, Part(BrokerState(QUEUES, 4, 6.0)), Part(WorkersState(FLEET)), {"postgres": STORE})


class Collector:
    """Gives overviews without any server."""

    def __init__(self, overview: Overview) -> None:
        self.overview = overview
        self.collected = 0

    def collect(self) -> Overview:
        """Give the overview, and count."""
        self.collected += 1
        return self.overview


def scrape(overview: Overview) -> dict[tuple[str, frozenset[str]], float]:
    """Scrape the metrics, and return each value by its name and the values of its labels but the adapter's."""
    text = generate_latest(overview_registry(cast(OverviewCollector, Collector(overview)))).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found: dict[Any, float] = {}
    for sample in samples:
        labels = frozenset(value for name, value in sample.labels.items() if name != "adapter")
        found[sample.name, labels] = sample.value
    return found


def test_every_part_becomes_metrics() -> None:
    found = scrape(OVERVIEW)
    expected = {
        ("queue_messages", "kv"): 5,
        ("queue_oldest_message_seconds", "kv"): 12.5,
        ("queue_oldest_message_seconds", "kv.maintenance"): 0,
        ("queue_consumers", "kv.maintenance"): 2,
        ("workers", "ready"): 1,
        ("workers", "unready"): 1,
        ("workers", "silent"): 1,
        ("workers_by_kind", "1.2.3", "prefork"): 2,
        ("unacknowledged_messages",): 4,
        ("oldest_unacknowledged_message_seconds",): 6,
        ("store_used_bytes",): 70,
        ("store_quota_bytes",): 1000,
        ("namespace_fullness_ratio", HOSTILE): 0.6,
        ("expiring_entries", "60"): 1,
        ("expiring_entries", "3600"): 3,
        ("unswept_entries",): 3,
        ("sweep_lag_seconds",): 4.5,
        ("table_bytes", "kv_entries", "indexes"): 16384,
        ("table_bytes", "database", "rows"): 4096,
        ("database_connections", "other"): 3,
        ("database_connections_waiting_for_lock",): 4,
        ("database_blocked_sessions",): 4,
        ("table_locks", "kv_entries"): 2,
        ("up", "queues", ""): 1,
        ("up", "tables"): 1,
    }
    for (name, *labels), value in expected.items():
        wanted = frozenset(label for label in labels if label)
        assert found[f"kvworker_{name}", wanted] == value, name
    assert ("kvworker_table_bytes", frozenset({"database", "indexes"})) not in found


def test_a_part_that_failed_is_down_and_has_no_numbers() -> None:
    store = StoreParts(total=Part(problem="away"), expiry=Part())
    found = scrape(Overview(1.0, Part(problem="away"), Part(), {"postgres": store}))
    ups = {label: value for (name, labels), value in found.items() if name == "kvworker_up" for label in labels}
    assert [name for name, value in ups.items() if not value] == ["queues", "total"]
    assert {name for name, _ in found} == {"kvworker_up", "kvworker_overview_seconds"}


def test_scrapes_shortly_after_one_another_read_once() -> None:
    collector = Collector(OVERVIEW)
    registry = overview_registry(cast(OverviewCollector, collector))
    assert collector.collected == 0
    generate_latest(registry)
    generate_latest(registry)
    assert collector.collected == 1


def test_the_reference_lists_every_metric() -> None:
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    listed = re.findall(
        r"^\| `(\w+)` \| gauge \| (.*?) \| (.*) \|$", text.partition("## Of the whole")[2], re.MULTILINE
    )
    registry = overview_registry(cast(OverviewCollector, Collector(OVERVIEW)))
    described = {
        family.name: (
            ", ".join(f"`{label}`" for label in {name: 0 for sample in family.samples for name in sample.labels}),
            family.documentation,
        )
        for family in registry.collect()
    }
    assert {name: (labels, meaning) for name, labels, meaning in listed} == described
