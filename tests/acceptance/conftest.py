from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from celery import Celery
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestBackend,
    CeleryTestBroker,
    CeleryTestWorker,
    CeleryWorkerCluster,
)

from kvworker import KeyValueStore, Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.ops.doctor import run_checks
from tests.support.processes import CeleryNode, ProcessNode, ValkeyNode, WorkerNode, running, wait_until
from tests.support.roles import WorkerRole, worker_role
from tests.support.user_worker import started_user_worker

ROOT = Path(__file__).resolve().parents[2]
POOLS = [["--pool=prefork", "--concurrency=2"], ["--pool=threads", "--concurrency=2"]]

#: Starts a worker with its own PostgreSQL adapter, and the same broker as the others.
StartWorker: TypeAlias = Callable[..., WorkerNode]


def write_config(
    directory: Path, postgres_url: str, broker_url: str, result_url: str, overrides: Mapping[str, Any]
) -> Path:
    """Write the configuration file of a store on PostgreSQL."""
    data: dict[str, Any] = {
        "tools": {"kv_store": {"default_adapter": "postgres", "adapters": {"postgres": {"url": postgres_url}}}},
        "queue": {"broker_url": broker_url, "result_backend": result_url},
    }
    for block, values in overrides.items():
        data[block] = {**data.get(block, {}), **values}
    path = directory / "kvworker.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def check_workers_of_one_name(settings: Settings, first: WorkerNode, second: WorkerNode) -> None:
    """The doctor names two workers that share a name, and still counts one of them that is frozen."""
    second.start()
    assert second.ready()

    def last_finding(detail: str) -> Callable[[], bool]:
        def is_last() -> bool:
            *others, last = run_checks(settings, ("worker",))
            answered = len([finding for finding in others if finding.ok and "it can serve" in finding.detail])
            found = re.fullmatch(detail, last.detail) is not None
            return found and not last.ok and answered == (1 if "frozen" in last.fix else 2) and bool(last.fix)

        return is_last

    wait_until(last_finding(r"several workers have the name worker@\S+, .*"), what="the shared name")
    second.kill("SIGSTOP")
    silent = "1 worker is connected to the broker and does not answer"
    wait_until(last_finding(silent), timeout_seconds=60, what="the silent worker")
    second.kill("SIGCONT")
    assert first.status == "running"


@pytest.fixture
def valkey_node(tmp_path: Path) -> Iterator[ValkeyNode]:
    directory = tmp_path / "valkey"
    directory.mkdir()
    with running(ValkeyNode(directory)) as node:
        yield node


@pytest.fixture
def config_overrides() -> dict[str, Any]:
    """Blocks of the configuration that a test changes."""
    return {}


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=prefork", "--concurrency=2"]


@pytest.fixture
def broker_url(valkey_node: ValkeyNode) -> str:
    return valkey_node.url


@pytest.fixture
def kv_config(
    tmp_path: Path, postgres_url: str, broker_url: str, valkey_node: ValkeyNode, config_overrides: Mapping[str, Any]
) -> Path:
    """The configuration file of the test's store: PostgreSQL, and Valkey at least for results."""
    return write_config(tmp_path, postgres_url, broker_url, valkey_node.url, config_overrides)


@pytest.fixture
def kv_environ(kv_config: Path) -> dict[str, str]:
    return {"KVWORKER_CONFIG": str(kv_config), "PYTHONPATH": str(ROOT)}


@pytest.fixture
def settings(kv_config: Path) -> Settings:
    return Settings.load(kv_config)


@pytest.fixture
def store(settings: Settings) -> Iterator[KeyValueStore]:
    with KeyValueStore(settings) as store:
        yield store


@pytest.fixture
def worker_node(tmp_path: Path, kv_environ: Mapping[str, str], worker_arguments: list[str]) -> Iterator[WorkerNode]:
    with running(WorkerNode(tmp_path, kv_environ, worker_arguments)) as node:
        yield node


@pytest.fixture
def other_worker(tmp_path: Path, kv_environ: Mapping[str, str]) -> Iterator[WorkerNode]:
    """A second worker with another pool, which the test must start."""
    node = WorkerNode(tmp_path, kv_environ, ["--pool=threads", "--concurrency=2"], name="other")
    yield node
    node.teardown()


@pytest.fixture
def namesake(tmp_path: Path, kv_environ: Mapping[str, str]) -> Iterator[WorkerNode]:
    """A second worker with the name of the first, which the test must start."""
    directory = tmp_path / "namesake"
    directory.mkdir()
    node = WorkerNode(directory, kv_environ, ["--pool=threads", "--concurrency=2"])
    yield node
    node.teardown()


@pytest.fixture
def role(postgres_url: str) -> Iterator[WorkerRole]:
    """A database user of a single worker."""
    with worker_role(postgres_url) as role:
        yield role


@pytest.fixture
def start_worker(tmp_path: Path, kv_config: Path) -> Iterator[StartWorker]:
    started: list[WorkerNode] = []

    def start_worker(postgres: Mapping[str, Any], pool: list[str] = POOLS[0]) -> WorkerNode:
        data = yaml.safe_load(kv_config.read_text())
        data["tools"]["kv_store"]["adapters"]["postgres"] = dict(postgres)
        config = tmp_path / "other.yaml"
        config.write_text(yaml.safe_dump(data))
        environ = {"KVWORKER_CONFIG": str(config), "PYTHONPATH": str(ROOT)}
        node = WorkerNode(tmp_path, environ, pool, name="broken")
        node.start()
        started.append(node)
        return node

    yield start_worker
    for node in started:
        node.teardown()


@pytest.fixture
def beat(tmp_path: Path, kv_environ: Mapping[str, str]) -> Iterator[ProcessNode]:
    arguments = ["beat", "-l", "INFO", "-s", "schedule", "--pidfile="]
    node = CeleryNode("beat", arguments, directory=tmp_path, environ=kv_environ)
    node.start()
    yield node
    node.teardown()


@pytest.fixture
def celery_broker_cluster(valkey_node: ValkeyNode) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(CeleryTestBroker(valkey_node))


@pytest.fixture
def celery_backend_cluster(valkey_node: ValkeyNode) -> CeleryBackendCluster:
    return CeleryBackendCluster(CeleryTestBackend(valkey_node))


@pytest.fixture
def celery_worker_cluster(worker_node: WorkerNode, celery_setup_app: Celery) -> CeleryWorkerCluster:
    return CeleryWorkerCluster(CeleryTestWorker(worker_node, celery_setup_app))


@pytest.fixture
def celery_setup_app(settings: Settings) -> Celery:
    return make_celery(settings)


@pytest.fixture
def user_app(valkey_node: ValkeyNode) -> Iterator[Celery]:
    """The host program's application, which is Celery's current one, as in any program with one application."""
    url = valkey_node.url.replace("127.0.0.1", "localhost")
    app = Celery("user", broker=url, backend=url)
    app.conf.task_default_queue = "user"
    yield app
    # A result that is collected later would unsubscribe, and wait for a server that is gone.
    app.backend.result_consumer.stop()
    app.backend.result_consumer._pubsub = None
    app.close()


@pytest.fixture
def user_worker(tmp_path: Path, kv_environ: dict[str, str], valkey_node: ValkeyNode) -> Iterator[ProcessNode]:
    node = started_user_worker(tmp_path, kv_environ, valkey_node.url, "user", "user")
    yield node
    node.teardown()
