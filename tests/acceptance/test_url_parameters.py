"""Parameters of a broker's URL reach every connection of callers and workers, with their types."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from kvworker import KeyValueStore, Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.ops.doctor import run_checks
from kvworker.ops.local.servers import embedded_valkey
from tests.support.processes import ValkeyNode, WorkerNode

PASSWORD = "the-brokers-password"  # noqa: S105 - of a server that this test starts


@pytest.fixture
def config_overrides(parameterized_url: str) -> dict[str, dict[str, str]]:
    return {"queue": {"broker_url": parameterized_url, "result_backend": parameterized_url}}


@pytest.fixture
def server(tmp_path: Path, valkey_node: ValkeyNode, request: pytest.FixtureRequest) -> Iterator[tuple[str, Redis]]:
    if request.param == "tcp":
        yield f"{valkey_node.url}?", valkey_node.client()
        return
    with embedded_valkey(tmp_path / "socket") as embedded:
        path = embedded.url.removeprefix("redis+socket://")
        Redis(unix_socket_path=path).config_set("requirepass", PASSWORD)
        client = Redis(unix_socket_path=path, password=PASSWORD)
        yield f"{embedded.url}?virtual_host=3&username=default&password={PASSWORD}&", client


@pytest.fixture
def parameterized_url(server: tuple[str, Redis], request: pytest.FixtureRequest) -> str:
    return f"{server[0]}protocol={request.param}&client_name=kv-app"


@pytest.mark.parametrize("worker_arguments", [["--pool=threads", "--concurrency=2"]], ids=str)
@pytest.mark.parametrize("parameterized_url", [2, 3], indirect=True)
@pytest.mark.parametrize("server", ["tcp", "socket"], indirect=True)
def test_a_redis_urls_parameters_reach_every_connection(
    server: tuple[str, Redis],
    parameterized_url: str,
    settings: Settings,
    store: KeyValueStore,
    worker_node: WorkerNode,
) -> None:
    assert store.set("n", "k", 1, timeout=30).value == 1
    findings = list(run_checks(settings, ("broker", "results")))
    assert all(finding.ok for finding in findings), findings
    unnamed = [
        client for client in server[1].client_list() if client["name"] != "kv-app" and client["cmd"] != "client|list"
    ]
    assert not unnamed
    protocols = {client["resp"] for client in server[1].client_list() if client["cmd"] in {"brpop", "lpush"}}
    assert protocols == {parameterized_url.partition("protocol=")[2][0]}
    stats = make_celery(settings).control.inspect(timeout=10, limit=1).stats()
    assert next(iter(stats.values()))["broker"]["transport"] == "redis"
    assert PASSWORD not in worker_node.logs() + repr(settings) + repr(store) + str(findings) + str(stats)
