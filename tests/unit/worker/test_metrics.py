"""A worker's status as metrics."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from kvworker.errors import ConfigurationError, NamespaceQuotaExceededError
from kvworker.messaging.observer import Event, MaintenanceReport, MessageReport, OperationEnd
from kvworker.messaging.outcomes import APPLIED, outcome_of_error
from kvworker.tools import TOOLS
from kvworker.worker.metrics import WorkerCollector, worker_registry
from kvworker.worker.metrics_endpoint import MetricsEndpoint
from kvworker.worker.totals import Totals

ROOT = Path(__file__).resolve().parents[3]
REFUSED = outcome_of_error(NamespaceQuotaExceededError("n", 1, 1, 1), writes=True)


def status(totals: Totals, problem: str = "") -> dict[str, Any]:
    return {
        "problem": problem,
        "version": "1.2.3",
        "pool": "threads",
        "concurrency": 4,
        "started_at": 1.8e9,
        "active": 1,
        "reserved": 3,
        "connections": {"postgres": {"busy": 2, "idle": 1, "limit": 10}},
        "totals": totals.report(),
    }


def scrape(totals: Totals, problem: str = "") -> list[str]:
    return generate_latest(worker_registry("w@h", lambda: status(totals, problem))).decode().splitlines()


def test_a_new_worker_shows_every_event_as_zero() -> None:
    lines = scrape(Totals())
    for event in Event:
        assert f"kvworker_{event}_total 0.0" in lines
    assert 'kvworker_worker_info{pool="threads",version="1.2.3",worker="w@h"} 1.0' in lines
    assert "kvworker_worker_ready 1.0" in lines
    assert "kvworker_worker_slots 4.0" in lines
    assert 'kvworker_worker_database_connections{adapter="postgres",state="busy"} 2.0' in lines
    assert 'kvworker_worker_database_connection_limit{adapter="postgres"} 10.0' in lines
    assert 'kvworker_refused_batch_steps_total{reason="namespace_quota"} 0.0' in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
    assert "kvworker_worker_ready 0.0" in scrape(Totals(), "no database")


def test_a_tool_in_use_shows_each_way_in_which_it_can_end() -> None:
    totals = Totals()
    totals.message_ended(MessageReport([OperationEnd(TOOLS["kv_set"], "id", REFUSED)], 0.3, queue_seconds=0.001))
    totals.message_ended(MessageReport([OperationEnd(TOOLS["kv_set"], "id", APPLIED)] * 2, 0.0006, coalesced=2))
    lines = scrape(totals)
    operations = {line for line in lines if line.startswith("kvworker_operations_total")}
    assert 'kvworker_operations_total{outcome="applied",reason="",tool="kv_set"} 2.0' in operations
    assert 'kvworker_operations_total{outcome="refused",reason="namespace_quota",tool="kv_set"} 1.0' in operations
    assert 'kvworker_operations_total{outcome="unknown",reason="timeout",tool="kv_set"} 0.0' in operations
    assert not [line for line in operations if 'outcome="read"' in line or 'outcome="unsent"' in line]
    assert 'kvworker_operation_duration_seconds_bucket{le="0.0005",tool="kv_set"} 0.0' in lines
    assert 'kvworker_operation_duration_seconds_bucket{le="0.001",tool="kv_set"} 2.0' in lines
    assert 'kvworker_operation_duration_seconds_bucket{le="+Inf",tool="kv_set"} 3.0' in lines
    assert 'kvworker_operation_duration_seconds_count{tool="kv_set"} 3.0' in lines
    assert 'kvworker_queue_wait_seconds_count{tool="kv_set"} 1.0' in lines


def test_runs_of_periodic_tasks_are_told_apart() -> None:
    totals = Totals()
    totals.maintenance_ended(MaintenanceReport("sweep", 2.0, rows=10, complete=True))
    totals.maintenance_ended(MaintenanceReport("sweep", 1.0, rows=5))
    lines = scrape(totals)
    assert 'kvworker_maintenance_runs_total{outcome="complete",task="sweep"} 1.0' in lines
    assert 'kvworker_maintenance_runs_total{outcome="incomplete",task="sweep"} 1.0' in lines
    assert 'kvworker_maintenance_rows_total{task="sweep"} 15.0' in lines
    assert 'kvworker_maintenance_seconds_total{task="sweep"} 3.0' in lines


def families() -> dict[str, tuple[str, str, str]]:
    """Each metric of ours with its type, its labels and its description."""
    totals = Totals()
    totals.message_ended(MessageReport([OperationEnd(TOOLS["kv_set"], "id", APPLIED)], 0.1, queue_seconds=0.1))
    totals.maintenance_ended(MaintenanceReport("sweep", 1.0))
    found = {}
    for family in WorkerCollector("w@h", lambda: status(totals)).collect():
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = family.type, ", ".join(f"`{label}`" for label in labels), family.documentation
    return found


def test_the_reference_describes_each_metric_as_the_metric_itself_does() -> None:
    text = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    section = text.split("\n## Of a worker\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\| (.+?) \|$", section, re.MULTILINE)
    assert {name: (kind, labels, meaning) for name, kind, labels, meaning in rows} == families()


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_one_clear_error(taken_port: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"cannot listen on 127.0.0.1, port {taken_port} \(Address already"):
        MetricsEndpoint(str(taken_port), "w@h", dict)


def test_an_address_that_is_none_is_one_clear_error() -> None:
    with pytest.raises(ConfigurationError, match="KVWORKER_METRICS_LISTEN is 'nowhere': it should be HOST:PORT"):
        MetricsEndpoint("nowhere", "w@h", dict)


def test_a_missing_extra_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, taken_port: int) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigurationError, match="KVWORKER_METRICS_LISTEN needs the extra `metrics`"):
        MetricsEndpoint(str(taken_port), "w@h", dict)
