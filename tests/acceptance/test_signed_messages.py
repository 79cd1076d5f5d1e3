"""Celery's message signing, with a real worker and a beat: they accept signed messages, and no others."""

from __future__ import annotations

import base64
import gc
import json
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery, chain
from kombu import serialization
from redis import Redis

from kvworker import (
    ConfigurationError,
    InvalidValueTypeError,
    KeyValueStore,
    OperationTimeoutError,
    PolicyDeniedError,
    Settings,
)
from kvworker.cli import main
from kvworker.messaging.celery_app import make_celery
from kvworker.model import JSONValue
from kvworker.ops.doctor import run_checks
from tests.support.malformed import push
from tests.support.processes import ProcessNode, ValkeyNode, WorkerNode, wait_until
from tests.support.tls import Signer, make_signer

ENTRY = {"namespace": "n", "key": "k"}


@pytest.fixture
def signers(tmp_path: Path) -> dict[str, Signer]:
    """Three signers. The directory ``trusted`` holds the certificates of two of them."""
    (tmp_path / "trusted").mkdir()
    signers = {name: make_signer(tmp_path, name) for name in ("caller", "worker", "stranger")}
    for name in ("caller", "worker"):
        (tmp_path / "trusted" / f"{name}.pem").write_text(signers[name].certificate.read_text())
    return signers


def policies_of(signer: Signer) -> dict[str, Any]:
    trusted = signer.key.parent / "trusted" / "*.pem"
    files = {"security_key": signer.key, "security_certificate": signer.certificate, "security_cert_store": trusted}
    return {name: str(file) for name, file in files.items()}


@pytest.fixture
def config_overrides(signers: dict[str, Signer]) -> dict[str, Any]:
    maintenance = dict.fromkeys(("sweep_interval_seconds", "sweep_budget_seconds"), 1)
    return {"policies": policies_of(signers["caller"]), "maintenance": maintenance}


@pytest.fixture
def kv_environ(
    tmp_path: Path, kv_config: Path, kv_environ: dict[str, str], signers: dict[str, Signer]
) -> dict[str, str]:
    """The environment of worker and beat, which have their own key."""
    data = yaml.safe_load(kv_config.read_text())
    data["policies"] = policies_of(signers["worker"])
    path = tmp_path / "worker.yaml"
    path.write_text(yaml.safe_dump(data))
    return {**kv_environ, "KVWORKER_CONFIG": str(path)}


@pytest.fixture
def stranger(kv_config: Path, signers: dict[str, Signer]) -> Settings:
    others = {"policies": policies_of(signers["stranger"]), "facade": {"timeout_seconds": 0.5}}
    return Settings.from_mapping({**yaml.safe_load(kv_config.read_text()), **others})


@pytest.fixture
def broker(valkey_node: ValkeyNode) -> Iterator[Redis]:
    with valkey_node.client() as client:
        yield client


def test_signed_messages_work_and_others_are_refused(
    settings: Settings,
    store: KeyValueStore,
    worker_node: WorkerNode,
    beat: ProcessNode,
    broker: Redis,
    stranger: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All checks share one worker, because its start takes longer than the checks."""
    check_signed_calls(settings, store)
    wait_until(lambda: "sweep: " in worker_node.logs(), what="beat's sweep")
    beat.stop()
    check_refused_messages(settings, stranger, store, broker, worker_node)
    check_signature_of_another_task(settings, store, broker)
    check_copied_write(settings, store, broker)
    check_unsigned_remote_control(settings, worker_node)
    check_forged_result(settings, broker)
    monkeypatch.setattr("kvworker.ops.doctor._MIN_WORKER_TIMEOUT_SECONDS", 0.5)
    check_doctor_of_a_stranger(stranger)
    assert worker_node.status == "running"
    assert "Connection to broker lost" not in worker_node.logs()
    assert "the-secret" not in worker_node.logs()


def check_signed_calls(settings: Settings, store: KeyValueStore) -> None:
    values: list[JSONValue] = [{"__type__": "datetime", "__value__": "no date"}, "\u0000ü", 2**70, "x" * 500_000]
    for value in values:
        store.set("n", "k", value)
        assert store.get("n", "k").value == value
    with pytest.raises(InvalidValueTypeError):
        store.increment("n", "k")
    with store.pipeline() as pipeline:
        counts = [pipeline.increment("n", "count") for _ in range(100)]
    assert counts[-1].result().value == 100
    steps = chain(
        store.signature("kv_set", {"namespace": "n", "key": "a", "value": 1}),
        store.signature("kv_set", {"namespace": "n", "key": "b"}),
    )
    assert steps.apply_async().get(timeout=20)["value"]["value"] == 1
    assert all(finding.ok for finding in run_checks(settings))
    assert make_celery(settings).control.ping(timeout=5.0, limit=1)


def signed(settings: Settings, payload: dict[str, Any]) -> str:
    """Make a body that is signed with the key of these settings."""
    make_celery(settings)
    return str(serialization.dumps([[], payload, {}], serializer="auth")[2])


def check_refused_messages(
    settings: Settings, stranger: Settings, store: KeyValueStore, broker: Redis, worker: WorkerNode
) -> None:
    payload = {**ENTRY, "value": "the-secret", "v": 1, "task": "kvworker.kv_set"}
    forged, body = signed(stranger, payload), signed(settings, payload)
    unsigned = json.dumps([[], payload, {}]).encode()
    store.set("n", "k", "kept")
    refused = {
        "not signed": ("application/json", unsigned),
        "text, which kombu always accepts": ("application/text", unsigned),
        "a pickle, which could run code": ("application/x-python-serialize", pickle.dumps([[], payload, {}])),
        "signed by an untrusted key": ("application/data", forged.encode()),
        "changed after it was signed": ("application/data", replaced(body, b"the-secret", b"THE-SECRET")),
        "another content type beside the signature": (
            "application/data",
            replaced(body, b"application/json", b"application/x-python-serialize"),
        ),
        "no signature at all": ("application/data", base64.b64encode(unsigned)),
    }
    for name, (content_type, raw) in refused.items():
        push(broker, {"content-type": content_type, "body": raw})
        assert store.get("n", "k", timeout=20).value == "kept", name
    wait_until(lambda: broker.hlen("kvworker.unacked") == 0, what="every message settled")
    logs = worker.logs()
    assert logs.count("a malformed message for kvworker.kv_set is refused") == len(refused)
    assert "its body cannot be decoded (ContentDisallowed)" in logs
    assert "its body cannot be decoded (SecurityError)" in logs


def replaced(body: str, old: bytes, new: bytes) -> bytes:
    inner = base64.b64decode(body)
    assert old in inner
    return base64.b64encode(inner.replace(old, new))


def check_signature_of_another_task(settings: Settings, store: KeyValueStore, broker: Redis) -> None:
    """Celery's signature does not cover the task's name, so our body repeats the name."""
    store.set("n", "k", "kept")
    body = signed(settings, {**ENTRY, "v": 1, "task": "kvworker.kv_get"}).encode()
    error = answer(settings, broker, "kvworker.kv_delete", body)
    assert isinstance(error, PolicyDeniedError)
    assert "does not name this task" in str(error)
    assert store.get("n", "k").value == "kept"


def check_copied_write(settings: Settings, store: KeyValueStore, broker: Redis) -> None:
    store.submit("kv_increment", {"namespace": "n", "key": "once"}, timeout=20).result()
    payload = {"namespace": "n", "key": "once", "v": 1, "task": "kvworker.kv_increment", "idempotency_key": "step-1"}
    body = signed(settings, payload).encode()
    replays = [answer(settings, broker, "kvworker.kv_increment", body)["replayed"] for _ in range(3)]
    assert replays == [False, True, True]
    assert store.get("n", "once").value == 2


def answer(settings: Settings, broker: Redis, task: str, body: bytes) -> Any:
    task_id = uuid.uuid4().hex
    push(broker, {"headers": {"task": task, "id": task_id}, "content-type": "application/data", "body": body})
    with make_celery(settings) as app:
        result = app.AsyncResult(task_id).get(timeout=20, propagate=False)
    # A result that is collected later would unsubscribe, from a server that is gone by then.
    gc.collect()
    return result


def check_unsigned_remote_control(settings: Settings, worker: WorkerNode) -> None:
    Celery(broker=settings.queue.broker_url, set_as_current=False).control.shutdown()
    wait_until(
        lambda: (
            "a malformed message without a task is refused: it cannot be decoded (ContentDisallowed)" in worker.logs()
        ),
        what="the refused command",
    )


def check_forged_result(settings: Settings, broker: Redis) -> None:
    """No worker consumes this queue. An attacker who can write to the result backend answers instead."""
    queue = settings.queue.model_copy(update={"queue_name": "kv.unused"})
    with KeyValueStore(settings.model_copy(update={"queue": queue})) as store:
        pending = store.submit("kv_get", ENTRY, timeout=1.0)
        task_id = pending._reply.message.task_id
        result = {"namespace": "n", "key": "k", "found": True, "value": "forged", "version": 1}
        meta = json.dumps(
            {"status": "SUCCESS", "result": result, "task_id": task_id, "children": [], "traceback": None}
        )
        broker.set(f"celery-task-meta-{task_id}", meta)
        broker.publish(f"celery-task-meta-{task_id}", meta)
        with pytest.raises(OperationTimeoutError):
            pending.result()


def check_doctor_of_a_stranger(stranger: Settings) -> None:
    (finding,) = run_checks(stranger, ("worker",))
    assert "policies.security_cert_store" in finding.fix


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"security_key": "nowhere.key"}, "security_key", "No such file"),
        ({"security_key": "trusted/caller.pem"}, "security_key", "it is not an RSA private key"),
        ({"security_key": "stranger.key"}, "security_certificate", "it does not belong to policies.security_key"),
        ({"security_certificate": "caller.key"}, "security_certificate", "it is not an RSA certificate"),
        ({"security_cert_store": "*.key"}, "security_cert_store", "it is not a directory or pattern"),
        ({"security_cert_store": "nowhere/*.pem"}, "security_cert_store", "no certificate is at"),
        ({"security_cert_store": None}, "security_cert_store", "it is missing"),
    ],
)
def test_unusable_files_are_reported_before_anything_starts(
    signers: dict[str, Signer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    path: str,
    reason: str,
) -> None:
    policies = {**policies_of(signers["caller"]), **changes}
    file = tmp_path / "kvworker.yaml"
    file.write_text(yaml.safe_dump({"policies": policies}))
    with pytest.raises(ConfigurationError, match=reason) as caught:
        make_celery(Settings.load(file))
    assert f"policies.{path}: " in str(caught.value)
    assert "PRIVATE KEY" not in str(caught.value)
    for command in (["worker"], ["doctor", "--check", "broker"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, "--config", str(file)])
        assert ended.value.code == 1
    printed = capsys.readouterr()
    assert reason in printed.err
    assert reason in printed.out
