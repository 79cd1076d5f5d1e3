"""``kvworker up`` runs the whole store, and other processes use it."""

from __future__ import annotations

import os
import re
import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from redis import Redis

from kvworker import InlineKeyValueStore, KeyValueStore
from tests.support.command_line import Up, kvworker, kvworker_json, running_up
from tests.support.processes import wait_until

CONFIG = Path(".kvworker") / "kvworker.yaml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up")


@pytest.fixture(scope="module")
def up(home: Path) -> Iterator[Up]:
    with running_up(home) as running:
        yield running


def test_another_terminal_finds_the_stack_without_options(up: Up, home: Path) -> None:
    assert kvworker("set", "demo", "greeting", '{"text":"grüß dich"}', cwd=home).stdout == "stored\n"
    assert kvworker("get", "demo", "greeting", cwd=home).stdout == '{"text": "grüß dich"}\n'


def dashboard_url(up: Up) -> str:
    """The address that ``up`` printed, which holds the key."""
    found = re.search(r"dashboard +(http://127\.0\.0\.1:[0-9]+/sign-in\?key=\S+)", up.text())
    assert found is not None, up.text()
    return found[1]


def test_the_dashboard_is_served_to_this_machine(up: Up, home: Path) -> None:
    kvworker("set", "shown", "k", "1", cwd=home)
    with httpx.Client(timeout=60) as client:
        client.get(dashboard_url(up)).raise_for_status()
        page = client.get(dashboard_url(up).partition("/sign-in")[0] + "/namespaces?search=shown").text
    assert all(text in page for text in ("Read-only", ">shown<", "1 namespace"))


def test_a_program_finds_the_stack_without_naming_a_file(up: Up, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    monkeypatch.delenv("KVWORKER_CONFIG", raising=False)
    with KeyValueStore.from_config() as store:
        assert store.set("program", "k", 1).value == 1
    with InlineKeyValueStore.from_config() as inline:
        assert inline.get("program", "k").value == 1


def test_a_counter_is_incremented_once_per_idempotency_key(up: Up, home: Path) -> None:
    arguments = ("increment", "demo", "calls", "--delta", "-2", "--idempotency-key", "step-1")
    first = kvworker_json(*arguments, cwd=home)
    assert (first["value"], first["replayed"]) == (-2, False)
    assert kvworker_json(*arguments, cwd=home) == {**first, "replayed": True}


def test_doctor_reports_no_failure(up: Up, home: Path) -> None:
    report = kvworker_json("doctor", cwd=home)
    assert report["ok"] is True
    assert report["checks"][0]["detail"] == ".kvworker/kvworker.yaml"
    names = [check["name"] for check in report["checks"]]
    # The last is the only worker's own answer.
    assert names == ["config", "broker", "results", "database", "schema", "clocks", "worker", "worker"]


def test_export_writes_the_imported_entries(up: Up, home: Path) -> None:
    lines = [f'{{"namespace":"imported","key":"k{i}","value":[{i},"é"]}}\n' for i in range(60)]
    (home / "in.jsonl").write_text("".join(lines))
    first = kvworker_json("import", "in.jsonl", cwd=home)
    again = kvworker_json("import", "in.jsonl", cwd=home)
    assert (first["applied"], first["replayed"]) == (60, 0)
    assert (again["applied"], again["replayed"]) == (0, 60)
    assert kvworker("export", "out.jsonl", "--namespace", "imported", cwd=home).returncode == 0
    assert sorted((home / "out.jsonl").read_text().splitlines(keepends=True)) == sorted(lines)
    usage = kvworker_json("namespaces", "imported", cwd=home)
    assert usage[0]["entry_count"] == 60


def test_own_quotas_travel_with_an_export(up: Up, home: Path) -> None:
    lines = '{"namespace":"large","quota_bytes":3000000}\n' + "".join(
        f'{{"namespace":"large","key":"k{i}","value":"{"x" * 4000}"}}\n' for i in range(500)
    )
    (home / "large.jsonl").write_text(lines)
    assert kvworker_json("import", "large.jsonl", cwd=home)["applied"] == 501
    assert kvworker("export", "copy.jsonl", "--namespace", "large", cwd=home).returncode == 0
    assert sorted((home / "copy.jsonl").read_text().splitlines()) == sorted(lines.splitlines())
    assert kvworker_json("namespaces", "large", cwd=home)[0]["quota_bytes"] == 3_000_000


def test_an_import_warns_of_repeated_keys(up: Up, home: Path) -> None:
    text = "".join(f'{{"namespace":"twice","key":"k","value":{i}}}\n' for i in range(3))
    done = kvworker("import", "-", cwd=home, stdin=text)
    assert done.returncode == 0
    assert "write a key of an earlier line again, and the last one counts: 2, 3" in done.stderr


def test_an_import_reports_bad_lines_and_continues(up: Up, home: Path) -> None:
    text = 'nonsense\n\n{"namespace":"n","key":"k","value":1}\n{"namespace":"n","key":"k","value":2,"ttl":3}\n'
    done = kvworker("import", "-", cwd=home, stdin=text)
    assert done.returncode == 1
    assert done.stdout == "applied 1, replayed 0, failed 2\n"
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["line 1", "line 4"]
    stopped = kvworker("import", "-", "--stop-on-error", cwd=home, stdin=text)
    assert stopped.stdout == "applied 0, replayed 0, failed 1\n"


def test_lines_for_one_key_are_applied_in_order(up: Up, home: Path) -> None:
    text = "".join(f'{{"namespace":"order","key":"k","value":{i}}}\n' for i in range(30))
    assert kvworker("import", "-", cwd=home, stdin=text).returncode == 0
    assert kvworker("get", "order", "k", cwd=home).stdout == "29\n"


def test_a_second_stack_in_the_same_directory_is_refused(up: Up, home: Path) -> None:
    done = kvworker("up", cwd=home)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"another stack is running in {home / '.kvworker'} (process {up.process.pid})" in done.stderr


def test_up_prints_the_workers_warnings(up: Up, home: Path) -> None:
    with (home / ".kvworker" / "logs" / "worker.log").open("a") as log:
        log.write("[2025-12-21 10:00:00,000: INFO/MainProcess] usual\n")
        log.write("[2025-12-21 10:00:00,001: WARNING/MainProcess] a ledger was \x1b[2J\u202ewrong\nand more of it\n")
    wait_until(lambda: "worker: and more of it" in up.text(), what="the warning")
    assert r"a ledger was \x1b[2J\u202ewrong" in up.text()
    assert "usual" not in up.text()


def test_other_users_and_machines_have_no_access(up: Up, home: Path) -> None:
    for name in ("kvworker.yaml", "kv.sqlite"):
        assert stat.S_IMODE((home / ".kvworker" / name).stat().st_mode) & 0o077 == 0, name
    addresses = {each.laddr.ip for child in up.family for each in child.net_connections("inet")}
    assert addresses == {"127.0.0.1"}
    # Other users reach the port of the dashboard, which lets them see nothing.
    without_key = httpx.get(dashboard_url(up).partition("/sign-in")[0] + "/namespaces", timeout=60)
    assert without_key.status_code == 401


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="sqlite"),
        pytest.param(["--postgres"], id="postgres"),
    ],
)
def test_it_stops_cleanly_and_continues_at_the_next_start(tmp_path: Path, arguments: list[str]) -> None:
    with running_up(tmp_path, *arguments) as up:
        with KeyValueStore.from_config(tmp_path / CONFIG) as store:
            store.set("kept", "key", [1, 2])
            # Freeze the parent, so that it does not stop the broker before the message is queued.
            os.kill(up.process.pid, signal.SIGSTOP)
            os.kill(up.child(" worker ").pid, signal.SIGKILL)
            # Before the broker notices that the worker is dead, it would deliver the message to it.
            wait_until(lambda: not _consumers(store), what="the end of the worker's connection")
            store.submit("kv_increment", {"namespace": "kept", "key": "queued"}, timeout=120)
            wait_until(lambda: _redis(store).llen("kv"), what="the message in the queue")
            os.kill(up.process.pid, signal.SIGCONT)
        wait_until(lambda: up.process.poll() is not None, timeout_seconds=40)
        assert up.process.returncode == 1
        assert "worker ended with exit code -9" in up.text()
        assert up.survivors() == []
    with running_up(tmp_path, *arguments) as up:
        with KeyValueStore.from_config(tmp_path / CONFIG) as store:
            assert store.get("kept", "key").value == [1, 2]
            wait_until(lambda: store.get("kept", "queued").value == 1, timeout_seconds=90, what="the queued message")
        assert up.stop(signal.SIGINT) == 0
        assert up.survivors() == []


def test_a_killed_parent_leaves_nothing_running(tmp_path: Path) -> None:
    settings = {"tools": {"kv_store": {"adapters": {"sqlite": {"namespace_quota_bytes": 77}}}}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(settings))
    # This path is too long for a Unix socket.
    state = tmp_path / ("s" * 60) / ("t" * 60)
    options = ("--config", "base.yaml", "--state", str(state), "--no-dashboard")
    with running_up(tmp_path, *options) as up:
        assert "dashboard" not in up.text()
        assert not any(child.net_connections("inet") for child in up.family)
        usage = kvworker_json("namespaces", "any", "--config", str(state / "kvworker.yaml"), cwd=tmp_path)
        assert usage[0]["quota_bytes"] == 77
        up.stop(signal.SIGKILL)
        wait_until(lambda: up.survivors() == [], what="the end of the children")


def _redis(store: KeyValueStore) -> Redis:
    client: Redis = store.dispatcher().app.backend.client
    return client


def _consumers(store: KeyValueStore) -> list[Any]:
    return [client for client in _redis(store).client_list() if client["cmd"] == "brpop"]
