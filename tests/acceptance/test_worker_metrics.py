"""A worker serves its metrics from its main process, in each pool."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from kvworker import KeyValueStore
from tests.acceptance.conftest import POOLS
from tests.support.processes import WorkerNode, wait_until
from tests.support.servers import free_port


@pytest.fixture
def kv_environ(kv_environ: dict[str, str]) -> dict[str, str]:
    port = free_port()
    return {**kv_environ, "KVWORKER_METRICS_LISTEN": f"{port}-{port + 50}"}


def metrics_url(node: WorkerNode) -> str:
    found = re.search(r"metrics are at (\S+)", node.logs())
    assert found is not None
    return found[1]


def samples(node: WorkerNode) -> list[str]:
    with urlopen(metrics_url(node), timeout=60) as answer:  # noqa: S310 - our own address
        text: str = answer.read().decode()
    return text.splitlines()


@pytest.mark.parametrize("worker_arguments", POOLS, ids=str)
def test_workers_of_one_machine_serve_metrics_on_ports_of_a_range(
    store: KeyValueStore, worker_node: WorkerNode, other_worker: WorkerNode
) -> None:
    for number in range(3):
        store.set("n", "k", number)
    expected = 'kvworker_operations_total{outcome="applied",reason="",tool="kv_set"} 3.0'
    assert expected in samples(worker_node)
    assert 'kvworker_queue_wait_seconds_count{tool="kv_set"} 3.0' in samples(worker_node)
    port = int(metrics_url(worker_node).rpartition(":")[2].partition("/")[0])
    holding = [child.pid for child in worker_node.children() if _listens(child, port)]
    assert not holding, "a child would keep the port after the worker"
    other_worker.start()
    assert other_worker.ready()
    assert metrics_url(other_worker) != metrics_url(worker_node)
    assert "kvworker_worker_ready 1.0" in samples(other_worker)


def _listens(process: psutil.Process, port: int) -> bool:
    connections = process.net_connections("inet")
    return any(each.laddr and each.laddr.port == port for each in connections)


def test_a_worker_that_cannot_listen_ends_with_one_line(
    tmp_path: Path, kv_environ: dict[str, str], worker_node: WorkerNode
) -> None:
    port = metrics_url(worker_node).rpartition(":")[2].partition("/")[0]
    node = WorkerNode(tmp_path, {**kv_environ, "KVWORKER_METRICS_LISTEN": port}, POOLS[0], name="clashing")
    try:
        node.start()
        wait_until(lambda: node.exit_code is not None, what="the worker's end")
        assert node.exit_code == 1
        (line,) = [line for line in node.logs().splitlines() if "CRITICAL" in line]
        assert f"cannot listen on 127.0.0.1, port {port} (Address already in use); give each" in line
        assert "Traceback" not in node.logs()
    finally:
        node.teardown()
