"""Errors that a worker raises, and those about a worker of an older release."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import pytest

from kvworker import CounterOverflowError, InvalidValueTypeError, KeyValueStore, NamespaceQuotaExceededError
from kvworker.errors import OperationTimeoutError, UnsupportedMessageError
from tests.support.processes import ProcessNode, WorkerNode, wait_until

pytestmark = pytest.mark.usefixtures("worker_node")


@pytest.fixture
def config_overrides(postgres_url: str) -> dict[str, Any]:
    adapters = {"postgres": {"url": postgres_url, "namespace_quota_bytes": 100}}
    return {"tools": {"kv_store": {"default_adapter": "postgres", "adapters": adapters}}}


def test_a_workers_errors_keep_their_class_and_attributes(store: KeyValueStore) -> None:
    store.set("n", "k", "x" * 50)
    with pytest.raises(NamespaceQuotaExceededError) as quota:
        store.set("n", "other", "x" * 60)
    assert (quota.value.namespace, quota.value.quota_bytes) == ("n", 100)
    assert (quota.value.used_bytes, quota.value.requested_bytes) == (52, 62)
    with pytest.raises(InvalidValueTypeError) as wrong_type:
        store.increment("n", "k")
    assert (wrong_type.value.namespace, wrong_type.value.key) == ("n", "k")
    store.set("n", "c", 2**63 - 1)
    with pytest.raises(CounterOverflowError):
        store.increment("n", "c")


def is_answered_once(store: KeyValueStore) -> bool:
    """Call a tool; a slow answer may count for one of two copies, which leaves the other's outcome unknown."""
    with contextlib.suppress(OperationTimeoutError):
        store.touch("n", "k", 60, timeout=30)
        return True
    return False


def test_the_error_says_that_the_worker_is_older_than_its_caller(
    kv_environ: dict[str, str], tmp_path: Path, store: KeyValueStore, worker_node: WorkerNode
) -> None:
    worker_node.stop()
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "tests.support.older_app",
        "worker",
        "--pool=solo",
        "-l",
        "INFO",
    ]
    older = ProcessNode("older", command, directory=tmp_path, environ=kv_environ)
    older.start()
    try:
        wait_until(lambda: "ready." in older.logs() or older.status == "exited", what="the worker's start")
        with pytest.raises(UnsupportedMessageError, match="does not know kv_touch, so it was not applied"):
            wait_until(lambda: is_answered_once(store), what="a call whose message was not sent again")
        assert store.set("n", "k", 1).value == 1
    finally:
        older.teardown()
