"""SQLite's files after a clean end: the main file alone holds everything, so that a copy of it is a backup."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from kvworker import InlineKeyValueStore, KeyValueStore, Settings
from kvworker.adapters import create_kv_store_adapter
from tests.acceptance.conftest import ROOT
from tests.support.command_line import clean_environ, kvworker, running_up
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

INLINE_WITHOUT_CLOSE = """
from kvworker import InlineKeyValueStore
store = InlineKeyValueStore.from_config()
store.set("n", "k", 1)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    file = tmp_path / "kv.sqlite"
    with create_kv_store_adapter("sqlite", {"url": f"sqlite:///{file}"}) as adapter:
        adapter.migrate()
    return file


@pytest.fixture
def config(tmp_path: Path, database: Path, valkey_node: ValkeyNode) -> Path:
    data = {
        "tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": f"sqlite:///{database}"}}}},
        "queue": {"broker_url": valkey_node.url},
    }
    path = tmp_path / "kvworker.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def value_in_copy(database: Path) -> object:
    """Copy the main file alone, and read the entry there."""
    copy = database.with_name("copy.sqlite")
    shutil.copy(database, copy)
    with create_kv_store_adapter("sqlite", {"url": f"sqlite:///{copy}"}) as adapter:
        return adapter.get("n", "k").value


@pytest.mark.parametrize(
    "pool", [["--pool=prefork", "--concurrency=3"], ["--pool=threads", "--concurrency=3"], ["--pool=solo"]], ids=str
)
def test_a_worker_that_is_stopped(tmp_path: Path, config: Path, database: Path, pool: list[str]) -> None:
    node = WorkerNode(tmp_path, {"KVWORKER_CONFIG": str(config), "PYTHONPATH": str(ROOT)}, pool)
    node.start()
    try:
        assert node.ready(), node.logs()
        with KeyValueStore(Settings.load(config)) as store:
            pending = [
                store.submit("kv_set", {"namespace": "n", "key": "k", "value": number}, timeout=60)
                for number in range(30)
            ]
            for operation in pending:
                operation.result()
            value = store.get("n", "k", timeout=60).value
        assert database.with_name("kv.sqlite-wal").stat().st_size > 0, "the worker checkpoints only at its end"
        assert node.stop() == 0
        assert value_in_copy(database) == value
    finally:
        node.teardown()


def test_a_store_that_is_closed_beside_another_connection(config: Path, database: Path) -> None:
    with closing(sqlite3.connect(database)) as other:
        other.execute("SELECT 1 FROM kv_entries").fetchall()
        with InlineKeyValueStore(Settings.load(config)) as store:
            store.set("n", "k", 1)
        assert value_in_copy(database) == 1, "two processes that end at once are each other's last connection"


def test_an_inline_store_that_a_program_never_closes(tmp_path: Path, config: Path, database: Path) -> None:
    environ = clean_environ({"KVWORKER_CONFIG": str(config)})
    subprocess.run([sys.executable, "-c", INLINE_WITHOUT_CLOSE], cwd=tmp_path, env=environ, check=True, timeout=60)
    assert value_in_copy(database) == 1


@pytest.mark.parametrize("command", ["sweep", "recompute", "namespaces", "export out.jsonl", "migrate"])
def test_a_command_that_uses_the_database(tmp_path: Path, config: Path, database: Path, command: str) -> None:
    with InlineKeyValueStore(Settings.load(config)) as store:
        store.set("n", "k", 1)
        done = kvworker(*command.split(), "--config", str(config), cwd=tmp_path)
        said = "exported 1 entry\n" if command.startswith("export") else ""
        assert (done.returncode, done.stderr) == (0, said)
    assert value_in_copy(database) == 1


def test_a_local_stack_that_is_stopped_and_a_call_that_comes_after_it(tmp_path: Path) -> None:
    with running_up(tmp_path) as up:
        with KeyValueStore(Settings.load(tmp_path / ".kvworker" / "kvworker.yaml")) as store:
            store.set("n", "k", 1, timeout=60)
        assert up.stop(signal.SIGINT) == 0
        wait_until(lambda: not up.survivors(), what="the end of its processes")
    stopped = kvworker("get", "n", "k", "--timeout", "2", cwd=tmp_path)
    assert stopped.returncode == 1
    assert "`kvworker up` starts a local one" in stopped.stderr
    assert value_in_copy(tmp_path / ".kvworker" / "kv.sqlite") == 1


def test_a_backup_of_a_store_that_is_in_use(config: Path, database: Path) -> None:
    copy = database.with_name("backup.sqlite")
    with InlineKeyValueStore(Settings.load(config)) as store:
        store.set("n", "k", 1)
        with sqlite3.connect(database) as running, sqlite3.connect(copy) as backup:
            running.backup(backup)
    assert value_in_copy(copy) == 1
