"""Liveness and readiness, as a probe and systemd see them, while servers go away and processes freeze."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from kvworker import KeyValueStore
from tests.acceptance.conftest import POOLS
from tests.support.health import FakeSystemd, beat_at, fake_systemd, probe
from tests.support.processes import CeleryNode, ValkeyNode, WorkerNode, running, wait_until
from tests.support.roles import WorkerRole

#: Longer than a busy machine lets a loop wait, and short enough to wait for.
WATCHDOG_SECONDS = 10.0
SOLO = ["--pool=solo"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[FakeSystemd]:
    with fake_systemd(tmp_path, WATCHDOG_SECONDS) as systemd:
        yield systemd


@pytest.fixture
def kv_environ(kv_config: Path, file: Path, systemd: FakeSystemd) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    own = {"KVWORKER_CONFIG": str(kv_config), "PYTHONPATH": root, "KVWORKER_HEARTBEAT": str(file)}
    return own | systemd.environ


def says(file: Path, *words: str) -> Callable[[], bool]:
    """Return a condition: the check with ``--ready`` says all these words."""
    return lambda: all(word in probe("--ready", str(file)) for word in words)


def stays_alive(file: Path) -> None:
    """Wait for three more heartbeats."""
    for _ in range(3):
        last = beat_at(file)
        wait_until(lambda last=last: beat_at(file) > last, what="the next heartbeat")  # type: ignore[misc]
    assert probe(str(file)).startswith("ok")


def use_role(config: Path, role: WorkerRole) -> None:
    """Let the worker log in to its database as this role."""
    data = yaml.safe_load(config.read_text())
    data["tools"]["kv_store"]["adapters"]["postgres"]["url"] = role.url
    config.write_text(yaml.safe_dump(data))


@pytest.mark.parametrize("pool", [*POOLS, SOLO], ids=str)
def test_a_worker_that_waits_for_a_server_is_alive_and_a_frozen_one_is_not(
    tmp_path: Path,
    kv_config: Path,
    kv_environ: Mapping[str, str],
    systemd: FakeSystemd,
    valkey_node: ValkeyNode,
    role: WorkerRole,
    pool: list[str],
) -> None:
    file = Path(kv_environ["KVWORKER_HEARTBEAT"])
    use_role(kv_config, role)
    valkey_node.stop()
    node = WorkerNode(tmp_path, kv_environ, pool)
    node.start()
    try:
        wait_until(says(file, "not ready", "the broker redis://", "is away"), what="the wait for the broker")
        stays_alive(file)
        assert "READY=1" not in systemd.reports()
        assert any(report.startswith("EXTEND_TIMEOUT_USEC=") for report in systemd.reports())
        valkey_node.start()
        wait_until(says(file, "ok   worker worker@"), what="readiness")
        assert systemd.reports().count("READY=1") == 1
        role.lock_out()
        wait_until(says(file, "not ready", "too many connections for role"), what="the wait for the database")
        stays_alive(file)
        role.admit()
        wait_until(says(file, "ok"), what="readiness again")
        if pool is SOLO:
            # Its loop may be silent for as long as a task takes. The other pools show what follows.
            assert "WATCHDOG_USEC=70000000" in systemd.reports()
        else:
            node.kill("SIGSTOP")
            wait_until(says(file, "FAIL", "frozen or wedged"), what="the check failing")
            node.kill("SIGCONT")
            wait_until(says(file, "ok"), what="readiness after all")
        assert node.stop() == 0
    finally:
        node.teardown()
    assert systemd.reports().count("READY=1") == 1
    assert "STOPPING=1" in systemd.reports()
    assert systemd.reports().count("WATCHDOG=1") > 6
    assert not file.exists()


class TestWedged:
    @pytest.fixture
    def config_overrides(self) -> dict[str, Any]:
        budgets = {f"{task}_budget_seconds": 1 for task in ("sweep", "recompute", "prune")}
        return {"queue": {"visibility_timeout_seconds": 5, "retry_seconds": 1}, "maintenance": budgets}

    def test_a_worker_whose_slots_never_come_free_fails_though_its_loop_turns(
        self, store: KeyValueStore, worker_node: WorkerNode, file: Path
    ) -> None:
        store.set("n", "k", 1, timeout=30)
        children = worker_node.children()
        for child in children:
            child.suspend()

        def fails() -> bool:
            store.submit("kv_get", {"namespace": "n", "key": "k"}, timeout=60)
            return says(file, "FAIL", "wedged: no slot of the pool has come free for 5 s")()

        wait_until(fails, what="the check failing")
        assert "this worker is wedged" in worker_node.logs()
        for child in children:
            child.resume()
        wait_until(says(file, "ok"), what="the worker serving again")
        assert store.get("n", "k", timeout=30).value == 1


class TestSolo:
    @pytest.fixture
    def worker_arguments(self) -> list[str]:
        return SOLO

    @pytest.mark.usefixtures("worker_node")
    def test_a_loop_that_runs_a_long_task_itself_is_alive(
        self, store: KeyValueStore, file: Path, postgres_url: str
    ) -> None:
        store.set("n", "k", 1, timeout=30)
        with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
            connection.execute("LOCK TABLE kv_entries IN ACCESS EXCLUSIVE MODE")
            pending = store.submit("kv_set", {"namespace": "n", "key": "k", "value": 2}, timeout=60)
            locked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as other:
                wait_until(lambda: other.execute(locked).fetchone() != (0,), what="the task waiting for the lock")
            assert probe(str(file)).startswith("ok")
        assert not pending.result(timeout=60).replayed


def test_beat_is_checked_too(
    tmp_path: Path, kv_config: Path, kv_environ: Mapping[str, str], file: Path, valkey_node: ValkeyNode
) -> None:
    data = yaml.safe_load(kv_config.read_text())
    data["maintenance"] = {"sweep_interval_seconds": 1, "sweep_budget_seconds": 1}
    kv_config.write_text(yaml.safe_dump(data))
    node = CeleryNode("beat", ["beat", "-l", "INFO", "-s", "schedule"], directory=tmp_path, environ=kv_environ)
    with running(node):
        wait_until(says(file, "ok   beat "), what="beat's readiness")
        valkey_node.kill()
        wait_until(says(file, "not ready", "the broker"), what="the wait for the broker")
        stays_alive(file)
        valkey_node.start()
        wait_until(says(file, "ok"), what="beat's readiness again")
        node.kill("SIGSTOP")
        wait_until(says(file, "frozen or wedged"), what="the check failing")
        node.kill("SIGCONT")
        assert node.stop() == 0
    assert not file.exists()
