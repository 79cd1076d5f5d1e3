"""A user's Celery tasks on ``store.OnceTask``, whose workers are killed during and after their effects."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord
from celery.canvas import Signature

from kvworker import EffectUnknownError, KeyValueStore
from tests.support.command_line import kvworker
from tests.support.processes import wait_until

NAMESPACE = "celery.once"


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=4"]


@pytest.fixture
def effects(tmp_path: Path) -> Path:
    return tmp_path / "effects"


def charge(app: Celery, order: str, how: str, effects: Path) -> Signature[Any]:
    return app.signature("user.charge", args=(order, how, str(effects)), queue="user", immutable=True)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.usefixtures("user_worker", "worker_node")
def test_a_task_that_is_killed_is_unknown_until_an_operator_settles_it(
    store: KeyValueStore, user_app: Celery, kv_config: Path, tmp_path: Path, effects: Path
) -> None:
    result = charge(user_app, "o-17", "hangs", effects).apply_async(task_id="payment-17")
    process_id = tmp_path / "effects.pid"
    wait_until(lambda: process_id.exists() and process_id.read_text(), timeout_seconds=120, what="the effect")
    os.kill(int(process_id.read_text()), signal.SIGKILL)

    # The message is delivered again at once. Its run waits for the end of the lease, and then fails.
    with pytest.raises(EffectUnknownError, match="whether the effect happened is unknown"):
        result.get(timeout=240)
    assert lines(effects) == ["o-17"]

    environ = {"KVWORKER_CONFIG": str(kv_config)}
    found = kvworker("steps", "list", "--state", "unknown", cwd=tmp_path, environ=environ)
    assert "payment-17" in found.stdout, found.stderr
    settle = ("steps", "resolve", NAMESPACE, "payment-17", "--done", "--value", '"receipt found"')
    settled = kvworker(*settle, cwd=tmp_path, environ=environ)
    assert settled.returncode == 0, settled.stderr
    result.forget()
    again = charge(user_app, "o-17", "hangs", effects).apply_async(task_id="payment-17")
    assert again.get(timeout=120) == "receipt found"
    assert lines(effects) == ["o-17"]
    assert store.step_status(NAMESPACE, "payment-17").state == "done"


@pytest.mark.usefixtures("user_worker", "worker_node")
def test_a_run_after_the_result_was_recorded_returns_it_in_chains_chords_and_retries(
    store: KeyValueStore, user_app: Celery, tmp_path: Path, effects: Path
) -> None:
    def mail(name: str) -> Signature[Any]:
        return user_app.signature("user.mail", args=(str(effects),), queue="user", options={"task_id": name})

    chained = chain(charge(user_app, "dies-1", "plain", effects), mail("mail-1")).apply_async()
    assert chained.get(timeout=240) == ["receipt of dies-1"]

    header = [charge(user_app, order, "plain", effects) for order in ("a", "dies-2", "b")]
    assert chord(header, mail("mail-2")).apply_async().get(timeout=240) == [
        f"receipt of {order}" for order in ("a", "dies-2", "b")
    ]
    for order, how in (("c", "flaky"), ("d", "replaced")):
        assert charge(user_app, order, how, effects).apply_async().get(timeout=240) == f"receipt of {order}"

    runs = tmp_path / "effects.runs"
    wait_until(
        lambda: lines(runs).count("dies-1") == lines(runs).count("dies-2") == 2,
        timeout_seconds=120,
        what="the runs of the messages that were delivered again",
    )
    assert sorted(lines(effects)) == ["a", "b", "c", "d", "dies-1", "dies-2", "mail of 1", "mail of 3"]
    assert {entry.key for entry in store.list_keys(NAMESPACE, include_values=True).entries} >= {"mail-1", "mail-2"}
