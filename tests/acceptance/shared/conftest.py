"""One database, broker and worker for all tests of a file: starting them takes longer than most tests do.

The tests here leave all three running. Each starts with an empty database and an empty result backend.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from kvworker import Settings
from kvworker.adapters.sql.schema import metadata
from tests.acceptance.conftest import ROOT, write_config
from tests.support.processes import ValkeyNode, WorkerNode, running
from tests.support.servers import PostgresServer


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stack")


@pytest.fixture(scope="module")
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="module")
def valkey_node(directory: Path) -> Iterator[ValkeyNode]:
    with running(ValkeyNode(directory)) as node:
        yield node
        # A result of Celery's that is collected later would unsubscribe, from a server that is gone by then.
        gc.collect()


@pytest.fixture(scope="module")
def kv_config(directory: Path, postgres_url: str, valkey_node: ValkeyNode) -> Path:
    return write_config(directory, postgres_url, valkey_node.url, valkey_node.url, {})


@pytest.fixture(scope="module")
def kv_environ(kv_config: Path) -> dict[str, str]:
    return {"KVWORKER_CONFIG": str(kv_config), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def settings(kv_config: Path) -> Settings:
    return Settings.load(kv_config)


@pytest.fixture(scope="module")
def shared_worker(directory: Path, kv_environ: dict[str, str]) -> Iterator[WorkerNode]:
    with running(WorkerNode(directory, kv_environ, ["--pool=prefork", "--concurrency=2"])) as node:
        yield node


@pytest.fixture
def worker_node(shared_worker: WorkerNode, postgres_url: str, valkey_node: ValkeyNode) -> WorkerNode:
    """The worker, once nothing is left of the previous test."""
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(table.delete())
    engine.dispose()
    with valkey_node.client() as client:
        for key in client.scan_iter("celery-task-meta-*"):
            client.delete(key)
    return shared_worker
