"""Operation ids, versions, claims and queued messages after a restore, as docs/how-to/backup.md describes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvworker import KeyValueStore, Settings
from kvworker.errors import OperationTimeoutError, VersionConflictError
from kvworker.model import IncrementResult
from tests.support.backups import libpq_url, run_documented
from tests.support.command_line import kvworker
from tests.support.processes import WorkerNode
from tests.support.servers import TEMPLATE_DATABASE, PostgresServer


def increment(store: KeyValueStore, operation_id: str) -> tuple[object, bool]:
    counted = store.increment("n", "counter", idempotency_key=operation_id)
    return counted.value, counted.replayed


def make_empty(server: PostgresServer, url: str, template: str) -> None:
    """Replace the database by a new one."""
    name = url.partition("?")[0].rpartition("/")[2]
    server.drop_database(name)
    server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")


def restore(server: PostgresServer, url: str, directory: Path) -> None:
    """Replace the database by its dump."""
    make_empty(server, url, "template0")
    run_documented("pg_restore", directory, {}, RESTORED_URL=libpq_url(url))


def test_operation_ids_answer_for_the_restored_state(
    store: KeyValueStore,
    worker_node: WorkerNode,
    settings: Settings,
    kv_config: Path,
    postgres_server: PostgresServer,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    assert [increment(store, f"before {number}") for number in (1, 2, 3)] == [(1, False), (2, False), (3, False)]
    store.set("n", "entry", "old")
    run_documented("pg_dump", tmp_path, {}, KV_URL=libpq_url(postgres_url))
    assert [increment(store, f"after {number}") for number in (1, 2)] == [(4, False), (5, False)]
    lost = store.set("n", "entry", "new")
    store.set("locks", "job", "first", if_absent=True)
    assert worker_node.stop() == 0
    arguments = {"namespace": "n", "key": "counter"}
    queued = store.submit("kv_increment", {**arguments, "idempotency_key": "queued"}, timeout=600)
    with pytest.raises(OperationTimeoutError):
        store.increment("n", "counter", delta=100, idempotency_key="late", timeout=0.5)

    restore(postgres_server, postgres_url, tmp_path)
    verified = kvworker("verify", "--config", str(kv_config), cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    worker_node.start()
    assert worker_node.ready()

    # The queue kept a message that is still awaited, and one whose caller's time was up before the restore.
    answer = queued.result(60)
    assert isinstance(answer, IncrementResult)
    assert answer.value == 4
    assert [increment(store, f"before {number}") for number in (1, 2, 3)] == [(1, True), (2, True), (3, True)]
    assert [increment(store, f"after {number}") for number in (1, 2)] == [(5, False), (6, False)]
    assert [increment(store, f"after {number}") for number in (1, 2)] == [(5, True), (6, True)]
    assert increment(store, "queued") == (4, True)
    with pytest.raises(VersionConflictError):
        store.set("n", "entry", "newer", expected_version=lost.version)
    assert store.get("n", "entry").value == "old"
    # A claim from after the backup is free again.
    assert store.set("locks", "job", "second", if_absent=True).value == "second"

    assert worker_node.stop() == 0
    # A caller that still waits would send the purged message again.
    with KeyValueStore(settings) as ended:
        ended.submit("kv_increment", {**arguments, "delta": 1000}, timeout=600)
    run_documented("celery", tmp_path, {}, KVWORKER_CONFIG=str(kv_config), PYTHONPATH=str(Path(__file__).parents[2]))
    worker_node.start()
    assert worker_node.ready()
    assert store.get("n", "counter").value == 6


def test_an_export_holds_no_operation_ids(
    store: KeyValueStore,
    worker_node: WorkerNode,
    kv_config: Path,
    postgres_server: PostgresServer,
    postgres_url: str,
    tmp_path: Path,
) -> None:
    assert increment(store, "once") == (1, False)
    version = store.get("n", "counter").version
    options = ("--config", str(kv_config))
    assert kvworker("export", "entries.jsonl", *options, cwd=tmp_path).returncode == 0
    assert worker_node.stop() == 0
    make_empty(postgres_server, postgres_url, TEMPLATE_DATABASE)
    worker_node.start()
    assert worker_node.ready()
    assert kvworker("import", "entries.jsonl", *options, cwd=tmp_path).returncode == 0
    assert store.get("n", "counter").version != version
    assert increment(store, "once") == (2, False)
    assert kvworker("verify", *options, cwd=tmp_path).returncode == 0
