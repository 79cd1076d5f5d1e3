"""A caller's metrics and their description."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from kvworker.messaging.observer import CallEvent
from kvworker.messaging.outcomes import APPLIED
from kvworker.ops.metrics import CallMetrics
from kvworker.tools import TOOLS

ROOT = Path(__file__).resolve().parents[3]


def test_the_reference_describes_each_metric_as_the_metric_itself_does() -> None:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry)
    metrics.call_began(TOOLS["kv_set"])
    metrics.call_ended(TOOLS["kv_set"], APPLIED, 0.1)
    expected = {}
    for family in registry.collect():
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        name = family.name + ("_total" if family.type == "counter" else "")
        expected[name] = family.type, ", ".join(f"`{label}`" for label in labels), family.documentation
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    section = text.split("\n## Of a caller\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (.+?) \|$", section, re.MULTILINE)
    assert {name: (kind, labels, meaning) for name, kind, labels, meaning in rows} == expected


def test_calls_in_flight_and_events_are_counted() -> None:
    registry = CollectorRegistry()
    metrics = CallMetrics(registry)
    for _ in range(2):
        metrics.call_began(TOOLS["kv_get"])
    metrics.call_ended(TOOLS["kv_get"], APPLIED, 0.1)
    metrics.happened(CallEvent.SEND_FAILED, 3)
    metrics.coalesced_message_sent(5)
    assert registry.get_sample_value("kvworker_calls_in_flight") == 1
    assert registry.get_sample_value("kvworker_send_failures_total") == 3
    assert registry.get_sample_value("kvworker_coalesced_calls_sent_bucket", {"le": "8.0"}) == 1


def test_a_registry_has_the_metrics_once() -> None:
    registry = CollectorRegistry()
    CallMetrics(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        CallMetrics(registry)
