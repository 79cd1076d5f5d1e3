"""Broker and results behind TLS and a password, with real workers: valid access works, and errors show no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from kvworker import KeyValueStore, QueueUnavailableError, Settings
from kvworker.ops.doctor import run_checks
from tests.acceptance.conftest import ROOT
from tests.acceptance.test_timeouts import within
from tests.support.processes import ProcessNode, ValkeyNode, WorkerNode, wait_until
from tests.support.tls import Authority, TlsProxy, make_authority, tls_before_port

USER, PASSWORD = "kv-app", "the-brokers-password"
SECRETS = (PASSWORD, "not-the-password")


@dataclass(frozen=True)
class Broker:
    """A Valkey with one user, and the TLS proxy in front of it."""

    proxy: TlsProxy
    authority: Authority
    stranger: Authority

    def url(self, password: str = PASSWORD, *, ca: Path | None = None) -> str:
        file = ca or self.authority.file
        return f"rediss://{USER}:{password}@{self.proxy.address}/0?ssl_ca_certs={file}"


@pytest.fixture
def broker(valkey_node: ValkeyNode, tmp_path: Path) -> Iterator[Broker]:
    with valkey_node.client() as client:
        client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", *documented_rights())
        client.execute_command("ACL", "SETUSER", "default", "off")
    ours, stranger = make_authority(tmp_path, "ours"), make_authority(tmp_path, "stranger")
    with tls_before_port(ours.context, int(valkey_node.url.rpartition(":")[2].partition("/")[0])) as proxy:
        yield Broker(proxy, ours, stranger)


@pytest.fixture
def config_overrides(broker: Broker) -> dict[str, Any]:
    return {
        "queue": {"broker_url": broker.url(), "result_backend": broker.url()},
        "maintenance": dict.fromkeys(("sweep_interval_seconds", "sweep_budget_seconds"), 1),
    }


@pytest.mark.parametrize("worker_arguments", [["--concurrency=2"], ["--pool=threads", "--concurrency=2"]], ids=str)
def test_everything_works_over_tls_with_a_password(
    broker: Broker, settings: Settings, store: KeyValueStore, worker_node: WorkerNode, beat: ProcessNode
) -> None:
    assert store.set("n", "k", {"a": ["é"]}).version
    assert store.get("n", "k").value == {"a": ["é"]}
    large = "x" * 900_000
    assert store.set("n", "large", large).value == large
    with store.pipeline() as pipeline:
        counts = [pipeline.increment("m", "count") for _ in range(500)]
    assert [count.result().value for count in counts] == list(range(1, 501))
    findings = list(run_checks(settings))
    assert all(finding.ok for finding in findings), findings
    check_reconnection(broker, store)
    wait_until(lambda: "sweep:" in worker_node.logs(), what="beat's sweep")
    assert worker_node.status == "running"
    check_no_secret(worker_node.logs(), beat.logs(), repr(settings), repr(store), str(findings))


def check_reconnection(broker: Broker, store: KeyValueStore) -> None:
    assert broker.proxy.cut() >= 3
    assert store.increment("m", "count", idempotency_key="after", timeout=20).value == 501
    assert store.get("m", "count", timeout=20).value == 501


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("stranger", "certificate verify failed"),
        ("password", "invalid username-password pair"),
        ("host", "Hostname mismatch"),
    ],
)
def test_a_refused_connection_is_reported_in_time_without_a_secret(
    broker: Broker, kv_config: Path, tmp_path: Path, case: str, reason: str
) -> None:
    url = {
        "stranger": broker.url(ca=broker.stranger.file),
        "password": broker.url("not-the-password"),
        "host": broker.url().replace("127.0.0.1", "localhost"),
    }[case]
    data = yaml.safe_load(kv_config.read_text())
    data["queue"].update(broker_url=url, result_backend=url)
    kv_config.write_text(yaml.safe_dump(data))
    worker = WorkerNode(tmp_path, {"KVWORKER_CONFIG": str(kv_config), "PYTHONPATH": str(ROOT)}, ["--pool=solo"])
    worker.start()
    try:
        shown = errors_shown_to_a_caller(Settings.load(kv_config), reason)
        error = "this worker cannot serve" if case == "password" else "Cannot connect to redis"
        wait_until(lambda: error in worker.logs(), what="the worker's error")
        assert reason in worker.logs()
        check_no_secret(worker.logs(), *shown)
    finally:
        worker.teardown()


def errors_shown_to_a_caller(settings: Settings, reason: str) -> list[str]:
    with KeyValueStore(settings) as store, within(2.5), pytest.raises(QueueUnavailableError) as caught:
        store.get("n", "k", timeout=1.5)
    findings = list(run_checks(settings, ("broker", "results")))
    assert [finding.ok for finding in findings] == [False, False]
    assert not [finding for finding in findings if "start" in finding.fix]
    shown = [str(caught.value), *(finding.detail for finding in findings)]
    assert all(reason in text for text in shown), shown
    return [*shown, repr(caught.value), repr(findings), repr(settings)]


def documented_rights() -> list[str]:
    """Read from docs/how-to/secure.md the rights that the user needs."""
    document = (ROOT / "docs" / "how-to" / "secure.md").read_text(encoding="utf-8")
    found = re.search(r"^user kvworker on >password (.+)$", document, re.MULTILINE)
    assert found is not None
    return found[1].split()


def check_no_secret(*texts: str) -> None:
    assert not [text for text in texts if any(secret in text for secret in SECRETS)]


def test_the_user_has_no_other_rights(broker: Broker) -> None:
    with Redis.from_url(broker.url()) as client:
        for command in (("CONFIG", "GET", "*"), ("FLUSHALL",), ("SHUTDOWN",), ("ACL", "LIST"), ("KEYS", "*")):
            with pytest.raises(Exception, match="no permissions"):
                client.execute_command(*command)
