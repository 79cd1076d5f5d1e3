"""A worker that cannot serve, beside one that can: it takes no calls, and reports its problem."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from kvworker import KeyValueStore, Settings
from kvworker.ops.doctor import Finding, run_checks
from tests.acceptance.conftest import POOLS, StartWorker, check_workers_of_one_name
from tests.support.command_line import clean_environ
from tests.support.processes import ValkeyNode, WorkerNode, wait_until
from tests.support.roles import WorkerRole
from tests.support.servers import PostgresServer, free_port

WRONG = "s3cret-wrong"
STOPPED, RESUMED = "cannot serve, so this worker consumes nothing", "can serve again"


def calls_succeed(store: KeyValueStore, count: int = 40) -> None:
    """Make calls one after the other, so that each goes to whichever worker takes it first."""
    first = store.increment("n", "c").value
    assert [store.increment("n", "c").value - first for _ in range(count)] == list(range(1, count + 1))


def no_database(_role: WorkerRole, _server: PostgresServer) -> dict[str, Any]:
    return {"reuse_conversation_store": True}


def wrong_password(role: WorkerRole, server: PostgresServer) -> dict[str, Any]:
    server.require_password(role.name)
    return {"url": make_url(role.url).set(password=WRONG).render_as_string(hide_password=False)}


def no_schema(_role: WorkerRole, server: PostgresServer) -> dict[str, Any]:
    return {"url": server.url("postgres")}


def missing_right(role: WorkerRole, _server: PostgresServer) -> dict[str, Any]:
    role.revoke("INSERT")
    return {"url": role.url}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (no_database, "it reuses the conversation store, but there is none"),
        (wrong_password, "correct the user or the password"),
        (no_schema, "run `kvworker migrate`"),
        (missing_right, "INSERT on kv_entries"),
    ],
)
def test_a_worker_that_can_never_serve_ends_with_one_line(
    store: KeyValueStore,
    worker_node: WorkerNode,
    start_worker: StartWorker,
    role: WorkerRole,
    postgres_server: PostgresServer,
    broken: Callable[[WorkerRole, PostgresServer], dict[str, Any]],
    reason: str,
) -> None:
    node = start_worker(broken(role, postgres_server))
    wait_until(lambda: node.exit_code is not None, what="the worker's end")
    assert node.exit_code == 1
    (line,) = [line for line in node.logs().splitlines() if "CRITICAL" in line]
    assert "this worker cannot serve: " in line
    assert reason in line
    assert "Traceback" not in node.logs()
    assert WRONG not in node.logs()
    assert worker_node.status == "running"
    calls_succeed(store)


def test_a_worker_whose_login_the_results_refuse_takes_no_call(
    store: KeyValueStore, worker_node: WorkerNode, other_worker: WorkerNode, valkey_node: ValkeyNode, kv_config: Path
) -> None:
    """It would apply operations, and their callers would wait for nothing. At the start it ends, and later it waits."""
    data = yaml.safe_load(kv_config.read_text())
    data["queue"]["result_backend"] = valkey_node.url.replace("redis://", f"redis://app:{WRONG}@")
    kv_config.write_text(yaml.safe_dump(data))
    with valkey_node.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">another", "~*", "&*", "+@all")
        other_worker.start()
        wait_until(lambda: other_worker.exit_code is not None, what="the worker's end")
        (line,) = [line for line in other_worker.logs().splitlines() if "CRITICAL" in line]
        assert "this worker cannot serve: the results' server refuses the login" in line
        assert "correct user or password in queue.result_backend" in line
        assert "Traceback" not in other_worker.logs()
        client.execute_command("ACL", "SETUSER", "app", f">{WRONG}")
        other_worker.start()
        assert other_worker.ready()
        client.execute_command("ACL", "SETUSER", "app", f"<{WRONG}")
        wait_until(lambda: STOPPED in other_worker.logs(), what="the worker stopping")
        calls_succeed(store)
        client.execute_command("ACL", "SETUSER", "app", f">{WRONG}")
        wait_until(lambda: RESUMED in other_worker.logs(), what="the worker's recovery")
    assert WRONG not in other_worker.logs()
    assert worker_node.status == "running"


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_a_worker_whose_database_is_away_at_the_start_waits_and_then_serves(
    store: KeyValueStore,
    settings: Settings,
    worker_node: WorkerNode,
    start_worker: StartWorker,
    role: WorkerRole,
    pool: list[str],
) -> None:
    role.lock_out()
    node = start_worker({"url": role.url}, pool)
    wait_until(lambda: "ready." in node.logs(), what="the worker's start")
    assert STOPPED in node.logs()
    calls_succeed(store)
    assert "Task kvworker.kv_" not in node.logs()
    failed = _failed_workers(settings, "broken")
    assert "too many connections for role" in failed[0].detail
    resume(node, role)
    worker_node.stop()
    calls_succeed(store)


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_a_worker_whose_database_goes_away_takes_no_call_until_it_is_back(
    store: KeyValueStore, worker_node: WorkerNode, start_worker: StartWorker, role: WorkerRole, pool: list[str]
) -> None:
    take_no_call_while_locked_out(store, worker_node, start_worker({"url": role.url}, pool), role)


def stop_by_lock_out(store: KeyValueStore, node: WorkerNode, role: WorkerRole) -> None:
    """Lock a worker out of its database, and send calls until it has stopped to consume. It may fail those."""
    stops = node.logs().count(STOPPED)
    role.lock_out()

    def has_stopped() -> bool:
        store.submit("kv_get", {"namespace": "n", "key": "c"}, timeout=1)
        return node.logs().count(STOPPED) > stops

    wait_until(has_stopped, what="the worker stopping")


def resume(node: WorkerNode, role: WorkerRole) -> None:
    """Let a worker reach its database again, and wait until it consumes."""
    before = node.logs().count(RESUMED)
    role.admit()
    wait_until(lambda: node.logs().count(RESUMED) > before, what="the worker's recovery")


def take_no_call_while_locked_out(
    store: KeyValueStore, worker_node: WorkerNode, node: WorkerNode, role: WorkerRole
) -> None:
    """Lock one of two workers out of its database, twice: the other one answers every call until it is back."""
    wait_until(lambda: "ready." in node.logs(), what="the worker's start")
    for _ in range(2):
        stop_by_lock_out(store, node, role)
        calls_succeed(store)
        resume(node, role)
        calls_succeed(store)
    assert worker_node.stop() == 0
    calls_succeed(store)
    assert node.stop() == 0


def test_a_fleet_whose_database_is_away_answers_again_when_it_is_back(
    store: KeyValueStore, start_worker: StartWorker, role: WorkerRole
) -> None:
    node = start_worker({"url": role.url})
    store.set("n", "k", 1, timeout=30)
    stop_by_lock_out(store, node, role)
    pending = store.submit("kv_get", {"namespace": "n", "key": "k"}, timeout=60)
    role.admit()
    assert pending.result().value == 1


def test_a_worker_that_waits_for_its_database_can_be_stopped(
    tmp_path: Path, start_worker: StartWorker, postgres_url: str
) -> None:
    node = start_worker({"url": f"postgresql://kv@127.0.0.1:{free_port()}/kv"})
    wait_until(lambda: STOPPED in node.logs() and "ready." in node.logs(), what="the worker waiting")
    assert node.stop() == 0


def test_doctor_asks_every_worker_and_names_each(
    store: KeyValueStore, settings: Settings, worker_node: WorkerNode, start_worker: StartWorker, role: WorkerRole
) -> None:
    node = start_worker({"url": role.url})
    wait_until(lambda: "ready." in node.logs(), what="the worker's start")
    wait_until(lambda: len(_workers(settings)) == 2, what="both workers answering")
    assert all(finding.ok for finding in _workers(settings))
    stop_by_lock_out(store, node, role)
    (failed,) = _failed_workers(settings, "broken")
    assert "it consumes nothing" in failed.detail
    assert "tools.kv_store.adapters" in failed.fix
    assert worker_node.status == "running"


def test_doctor_names_a_frozen_worker_at_once_beside_one_that_answers(
    store: KeyValueStore, settings: Settings, worker_node: WorkerNode, other_worker: WorkerNode
) -> None:
    other_worker.start()
    assert other_worker.ready()
    wait_until(lambda: all(finding.ok for finding in _workers(settings)), what="both workers answering")
    other_worker.kill("SIGSTOP")
    *_, last = run_checks(settings, ("worker",))
    assert not last.ok
    assert re.fullmatch(r"1 worker is connected to the broker and does not answer: other@\S+", last.detail)
    assert "frozen" in last.fix
    other_worker.kill("SIGCONT")
    wait_until(lambda: len(_workers(settings)) == 2, what="both workers answering again")
    other_worker.kill("SIGSTOP")
    other_worker.kill("SIGTERM")
    assert "SIGKILL" in last.fix
    assert other_worker.status == "running"
    other_worker.kill()
    wait_until(lambda: all(finding.ok for finding in run_checks(settings, ("worker",))), what="the one that is left")
    assert worker_node.status == "running"


def test_doctor_names_workers_that_share_a_name(
    settings: Settings, worker_node: WorkerNode, namesake: WorkerNode
) -> None:
    """Celery keeps one answer for each name, so the second worker counted as a silent one."""
    check_workers_of_one_name(settings, worker_node, namesake)


def _workers(settings: Settings) -> list[Finding]:
    findings = list(run_checks(settings, ("worker",)))
    return [finding for finding in findings if "@" in finding.detail]


def _failed_workers(settings: Settings, name: str) -> list[Finding]:
    found: list[Finding] = []

    def find() -> bool:
        found[:] = [finding for finding in _workers(settings) if not finding.ok and f"{name}@" in finding.detail]
        return bool(found)

    wait_until(find, what="the doctor naming the worker")
    return found


def test_an_unusable_file_is_one_line_for_celery_too(tmp_path: Path) -> None:
    config = tmp_path / "kvworker.yaml"
    config.write_text("queue: {broker_urll: x}")
    for program in ("worker", "beat"):
        command = [sys.executable, "-m", "celery", "-A", "tasks", program]
        environ = clean_environ({"KVWORKER_CONFIG": str(config)})
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert "queue.broker_urll: unknown key" in line
