"""Policies with a real worker: it denies what a facade would deny, and messages without a signature."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain
from sqlalchemy import create_engine

from kvworker import AsyncKeyValueStore, ConfigurationError, KeyValueStore, Settings
from kvworker.adapters.sql.migrations import migrate
from kvworker.cli import main
from kvworker.errors import OperationExpiredError, PolicyDeniedError, StepLostError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.signing import sign_payload
from kvworker.messaging.waiting import waiting_header
from kvworker.messaging.wire import PRUNE_TASK, RECOMPUTE_TASK, SWEEP_TASK, WAITING
from kvworker.ops.doctor import run_checks
from tests.support.policy_matrix import ALLOWED, DENIED, NAMESPACES, PERSONAS, Cell
from tests.support.processes import WorkerNode, wait_until

KEY = "the-key-of-the-acceptance-test"
ENTRY = {"namespace": "team.a", "key": "k"}


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=2"]


@pytest.fixture
def config_overrides(tmp_path: Path, postgres_url: str) -> dict[str, Any]:
    scratch_url = f"sqlite:///{tmp_path}/scratch.sqlite"
    engine = create_engine(scratch_url)
    migrate(engine)
    engine.dispose()
    adapters = {"postgres": {"url": postgres_url}, "sqlite": {"url": scratch_url}}
    scratch = {**PERSONAS["operator"], "provider": "kv_store_sqlite"}
    lost = {**PERSONAS["operator"], "provider": "kv_store_lost"}
    return {
        "tools": {"kv_store": {"default_adapter": "postgres", "adapters": adapters}},
        "policies": {"signing_key": KEY, "personas": {**PERSONAS, "scratch": scratch, "lost": lost}},
    }


def test_policies(kv_config: Path, settings: Settings, worker_node: WorkerNode, tmp_path: Path) -> None:
    """One worker serves all checks, because starting it takes longer than all of them."""
    app = make_celery(settings)
    with KeyValueStore(settings, "operator") as store:
        the_matrix_by_hand(app, store)
        what_is_not_signed(app)
        a_strangers_message_with_the_id_of_a_call(app, store)
        a_copy_of_a_message(app, store)
        a_chain(store)
        the_provider_of_a_persona(app, store)
        other_facades(store)
    the_command_line(kv_config, tmp_path)
    the_doctor(settings)
    logs = worker_node.logs()
    assert "denied: persona 'reader', tool kv_set, namespace 'other'" in logs
    assert KEY not in logs
    assert "the-secret" not in logs


def by_hand(app: Celery, cell: Cell) -> Any:
    """Send a message that no facade would send."""
    payload = {**cell.arguments, **({"persona": cell.persona} if cell.persona else {})}
    task_name = f"kvworker.{cell.tool}"
    return app.send_task(task_name, kwargs=sign_payload(KEY, task_name, payload), queue="kv")


def failure(sent: Any) -> Any:
    return sent.get(timeout=20, propagate=False)


def the_matrix_by_hand(app: Celery, store: KeyValueStore) -> None:
    for namespace in NAMESPACES:
        store.set(namespace, "k", "kept")
        store.set(namespace, "count", 1)
    before = [store.list_keys(namespace, include_values=True) for namespace in NAMESPACES]
    for cell, sent in [(cell, by_hand(app, cell)) for cell in DENIED]:
        error = failure(sent)
        assert isinstance(error, PolicyDeniedError), (cell, error)
        assert (error.persona, error.tool) == (cell.persona or "", cell.tool)
    assert [store.list_keys(namespace, include_values=True) for namespace in NAMESPACES] == before
    listed = store.as_persona("team").list_namespaces().namespaces
    assert [usage.namespace for usage in listed] == ["shared.b", "team.a"]
    for cell, sent in [(cell, by_hand(app, cell)) for cell in ALLOWED]:
        assert isinstance(failure(sent), dict | StepLostError), cell


def what_is_not_signed(app: Celery) -> None:
    payload = {**ENTRY, "value": "the-secret", "persona": "operator"}
    signed = sign_payload(KEY, "kvworker.kv_set", payload)
    for kwargs in (payload, sign_payload("a-key-of-somebody-else", "kvworker.kv_set", payload), {**signed, "key": "l"}):
        error = failure(app.send_task("kvworker.kv_set", kwargs=kwargs, queue="kv"))
        assert isinstance(error, PolicyDeniedError)
        assert "policies.signing_key" in str(error)


def a_strangers_message_with_the_id_of_a_call(app: Celery, store: KeyValueStore) -> None:
    """As the page about security says: it is answered, and changes nothing else."""
    late = {WAITING: waiting_header(time.time() - 60, 10, "")}
    for headers, answer in (({}, PolicyDeniedError), (late, OperationExpiredError)):
        payload: dict[str, Any] = {"namespace": "n", "key": answer.__name__, "value": 1, "persona": "operator"}
        send = partial(app.send_task, "kvworker.kv_set", queue="kv", task_id=f"call-{answer.__name__}")
        assert isinstance(failure(send(kwargs=payload, headers=headers)), answer)
        assert not store.get("n", answer.__name__).found
        send(kwargs=sign_payload(KEY, "kvworker.kv_set", payload))
        wait_until(partial(is_stored, store, answer.__name__), what="the call itself applied")


def is_stored(store: KeyValueStore, key: str) -> bool:
    return store.get("n", key).found


def a_copy_of_a_message(app: Celery, store: KeyValueStore) -> None:
    payload = {"namespace": "n", "key": "once", "persona": "operator", "idempotency_key": "step-1"}
    kwargs = sign_payload(KEY, "kvworker.kv_increment", {**payload, "deadline": time.time() + 60})
    sent = [app.send_task("kvworker.kv_increment", kwargs=kwargs, queue="kv") for _ in range(3)]
    assert sorted(failure(task)["replayed"] for task in sent) == [False, True, True]
    assert store.get("n", "once").value == 1


def a_chain(store: KeyValueStore) -> None:
    tagged = {"__type__": "datetime", "__value__": "no date"}
    steps = chain(
        store.signature("kv_set", {"namespace": "n", "key": "a", "value": tagged, "idempotency_key": "a-1"}),
        store.signature("kv_set", {"namespace": "n", "key": "b", "idempotency_key": "b-1"}),
    )
    assert steps.apply_async().get(timeout=20)["value"]["value"] == tagged
    assert store.get("n", "a").value == tagged
    with pytest.raises(PolicyDeniedError):
        store.as_persona("reader").signature("kv_set", {"namespace": "n", "key": "a"})


def the_provider_of_a_persona(app: Celery, store: KeyValueStore) -> None:
    scratch = store.as_persona("scratch")
    scratch.set("n", "brief", 1, ttl_seconds=0.05)
    scratch.set("n", "long", 2)
    assert store.get("n", "long").found is False
    with pytest.raises(ConfigurationError, match=r"'kv_store_lost'; available: .*kv_store_sqlite"):
        store.as_persona("lost").get("n", "k")
    wait_until(lambda: not scratch.get("n", "brief").found)
    for task in (RECOMPUTE_TASK, PRUNE_TASK, SWEEP_TASK):
        app.send_task(task, queue="kv.maintenance")
    wait_until(lambda: scratch.usage("n").entry_count == 1, what="the sweep of the persona's adapter")


def other_facades(store: KeyValueStore) -> None:
    async def check() -> None:
        async with AsyncKeyValueStore(store.settings, "reader") as asynchronous:
            await asynchronous.get("n", "k")
            await asynchronous.as_persona("writer").set("n", "k", "the-secret")

    asyncio.run(check())
    assert store.get("n", "k").value == "the-secret"


def the_command_line(kv_config: Path, directory: Path) -> None:
    def run(*arguments: str) -> object:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--config", str(kv_config)])
        return ended.value.code

    assert run("set", "n", "k", "1", "--persona", "writer") == 0
    assert run("get", "n", "k", "--persona", "reader") == 0
    assert run("increment", "n", "k", "--persona", "reader") == 1
    assert run("delete", "n", "k") == 1
    lines = [{"namespace": namespace, "key": "k", "value": 1} for namespace in NAMESPACES]
    file = directory / "lines.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    assert run("import", str(file), "--persona", "team", "--json") == 1
    assert run("import", str(file), "--persona", "writer") == 0


def the_doctor(settings: Settings) -> None:
    personas = {name: persona for name, persona in settings.policies.personas.items() if name != "lost"}
    findings = {finding.name: finding for finding in run_checks(changed(settings, personas=personas))}
    assert all(finding.ok for finding in findings.values()), findings
    assert findings["database"].detail == "postgres, sqlite"
    finding = next(run_checks(changed(settings, signing_key=None), ("worker",)))
    assert not finding.ok
    assert "policies.signing_key" in finding.fix


def changed(settings: Settings, **policies: Any) -> Settings:
    return settings.model_copy(update={"policies": settings.policies.model_copy(update=policies)})
