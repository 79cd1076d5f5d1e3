"""A network that loses the worker's connections without a word: the worker notices within seconds, and recovers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kvworker import KeyValueStore
from tests.acceptance.conftest import ROOT
from tests.support.elapsed import finishes_within
from tests.support.processes import ValkeyNode, WorkerNode
from tests.support.silent_proxy import SilentProxy, silent_proxy

#: kombu's own default is 51 s.
BOUND_SECONDS = 15.0


@pytest.fixture
def proxy(valkey_node: ValkeyNode) -> Iterator[SilentProxy]:
    port = int(valkey_node.url.rpartition(":")[2].partition("/")[0])
    with silent_proxy(("127.0.0.1", port)) as proxy:
        yield proxy


@pytest.fixture
def worker_behind_proxy(
    proxy: SilentProxy, kv_config: Path, tmp_path: Path, worker_arguments: list[str]
) -> Iterator[WorkerNode]:
    data = yaml.safe_load(kv_config.read_text())
    url = f"redis://127.0.0.1:{proxy.port}/0"
    data["queue"] |= {"broker_url": url, "result_backend": url}
    config = tmp_path / "behind-proxy.yaml"
    config.write_text(yaml.safe_dump(data))
    node = WorkerNode(tmp_path, {"KVWORKER_CONFIG": str(config), "PYTHONPATH": str(ROOT)}, worker_arguments)
    node.start()
    assert node.ready(), node.logs()
    yield node
    node.teardown()


@pytest.mark.parametrize(
    "worker_arguments", [["--concurrency=2"], ["--pool=threads", "--concurrency=2"], ["--pool=solo"]], ids=str
)
def test_a_worker_whose_connections_to_redis_are_lost_silently(
    store: KeyValueStore, worker_behind_proxy: WorkerNode, proxy: SilentProxy
) -> None:
    store.set("n", "c", 0, timeout=60)
    for number in range(2):
        proxy.silence()
        with finishes_within(BOUND_SECONDS):
            assert store.increment("n", "c", timeout=100).value == number + 1
    assert worker_behind_proxy.status == "running", worker_behind_proxy.logs()
