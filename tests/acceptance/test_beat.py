"""Beat: it really sweeps, a second beat does no harm, and stale messages do not pile up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from rich.console import Console

from kvworker import KeyValueStore, Settings
from kvworker.cli.stats_tables import overview_tables
from kvworker.ops.overview.collector import OverviewCollector
from tests.support.processes import CeleryNode, ProcessNode, ValkeyNode, WorkerNode, wait_until


@pytest.fixture
def config_overrides() -> dict[str, Any]:
    return {
        "maintenance": {
            "sweep_interval_seconds": 1,
            "sweep_budget_seconds": 1,
            "recompute_interval_seconds": 1,
            "recompute_budget_seconds": 1,
            "prune_interval_seconds": 1,
            "prune_budget_seconds": 1,
        }
    }


def _beat(directory: Path, environ: Mapping[str, str], name: str) -> ProcessNode:
    schedule = str(directory / f"{name}-schedule")
    arguments = ["beat", "-l", "INFO", "-s", schedule, "--pidfile="]
    node = CeleryNode(name, arguments, directory=directory, environ=environ)
    node.start()
    return node


@pytest.fixture
def beats(tmp_path: Path, kv_environ: Mapping[str, str]) -> Iterator[list[ProcessNode]]:
    nodes = [_beat(tmp_path, kv_environ, name) for name in ("beat-1", "beat-2")]
    yield nodes
    for node in nodes:
        node.teardown()


def _rows(postgres_url: str) -> int:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        found = connection.execute("SELECT count(*) FROM kv_entries").fetchone()
    return found[0] if found else -1


def test_two_beats_sweep_recompute_and_prune(
    store: KeyValueStore, settings: Settings, worker_node: WorkerNode, beats: list[ProcessNode], postgres_url: str
) -> None:
    for number in range(50):
        store.set("n", f"k{number}", "x" * 10, ttl_seconds=0.1)
    store.set("n", "stays", "x" * 10)
    wait_until(lambda: _rows(postgres_url) == 1, what="the sweep")
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        ledger = "SELECT used_bytes, entry_count FROM kv_ledgers WHERE namespace = 'n'"
        assert connection.execute(ledger).fetchone() == (12, 1)
        connection.execute("UPDATE kv_ledgers SET used_bytes = 77 WHERE namespace = 'n'")
        wait_until(lambda: connection.execute(ledger).fetchone() == (12, 1), what="the recompute")
        connection.execute("UPDATE kv_records SET kept = 0")
        count = "SELECT count(*) FROM kv_records"
        wait_until(lambda: connection.execute(count).fetchone() == (0,), what="the prune")
    with closing(OverviewCollector(settings)) as collector:

        def shows_the_drift() -> bool:
            printed = StringIO()
            Console(file=printed).print(overview_tables(collector.collect()))
            return "recomputes found and corrected 1 wrong ledger" in printed.getvalue()

        wait_until(shows_the_drift, timeout_seconds=60, what="the drift in the worker's counts")
    log = worker_node.logs()
    assert "ledger was wrong" in log
    assert "recorded_bytes=77" in log
    assert "deleted_rows=" in log
    assert "ERROR" not in log


def test_maintenance_does_not_pile_up_while_no_worker_runs(
    valkey_node: ValkeyNode, beats: list[ProcessNode], tmp_path: Path, kv_environ: Mapping[str, str]
) -> None:
    with valkey_node.client() as client:
        wait_until(lambda: client.llen("kv.maintenance") >= 18, what="messages of three intervals and two beats")
    for beat in beats:
        beat.teardown()
    worker = WorkerNode(tmp_path, kv_environ, ["--concurrency=1"])
    worker.start()
    try:
        assert worker.ready(), worker.logs()
        with valkey_node.client() as client:
            wait_until(lambda: client.llen("kv.maintenance") == 0 and client.hlen("kvworker.unacked") == 0)
        assert worker.logs().count("sweep:") <= 4
        assert "expired" in worker.logs()
    finally:
        worker.teardown()


def test_maintenance_leaves_no_results(
    worker_node: WorkerNode, beats: list[ProcessNode], valkey_node: ValkeyNode, store: KeyValueStore
) -> None:
    wait_until(lambda: "sweep:" in worker_node.logs(), what="a sweep")
    with valkey_node.client() as client:
        assert list(client.scan_iter("celery-task-meta-*")) == []
