"""``doctor`` where a part is frozen or forbids something: it ends, and names the part."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from kvworker import Settings
from kvworker.ops.doctor import Finding, run_checks
from tests.support.processes import ValkeyNode, WorkerNode


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port where connections are accepted and nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def findings(config: Path) -> dict[str, Finding]:
    """Return the last finding of each check."""
    return {finding.name: finding for finding in run_checks(Settings.load(config))}


def test_a_frozen_broker_is_named(kv_config: Path, valkey_node: ValkeyNode) -> None:
    valkey_node.kill(signal.SIGSTOP)
    try:
        found = findings(kv_config)
    finally:
        valkey_node.kill(signal.SIGCONT)
    assert [name for name, finding in found.items() if finding.ok] == ["database", "schema"]
    for name in ("broker", "results"):
        assert "Timeout reading from socket" in found[name].detail


@pytest.mark.parametrize(
    ("key", "url", "named"),
    [
        ("broker_url", "amqp://guest:guest@127.0.0.1:{}//", "broker"),
        ("result_backend", "rediss://127.0.0.1:{}/0", "results"),
        ("url", "postgresql://user:password@127.0.0.1:{}/kv", "database"),
    ],
)
def test_a_server_that_never_answers_is_named(
    kv_config: Path, worker_node: WorkerNode, silent_port: int, key: str, url: str, named: str
) -> None:
    data = yaml.safe_load(kv_config.read_text())
    block = data["tools"]["kv_store"]["adapters"]["postgres"] if key == "url" else data["queue"]
    block[key] = url.format(silent_port)
    kv_config.write_text(yaml.safe_dump(data))
    found = findings(kv_config)
    assert not found[named].ok
    assert all(found[name].ok for name in {"broker", "results", "database"} - {named})


def test_a_login_that_may_not_ask_the_workers_is_a_finding(
    kv_config: Path, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    with valkey_node.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">app", "~*", "+@all", "resetchannels")
    data = yaml.safe_load(kv_config.read_text())
    data["queue"]["broker_url"] = valkey_node.url.replace("://", "://app:app@")
    kv_config.write_text(yaml.safe_dump(data))
    found = findings(kv_config)
    assert [name for name, finding in found.items() if not finding.ok] == ["worker"]
    assert "the workers cannot be asked one by one: No permissions to access a channel" in found["worker"].detail
    assert "queue.remote_control" in found["worker"].fix
