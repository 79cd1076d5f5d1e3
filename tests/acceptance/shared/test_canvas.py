"""Operations in chains, groups and chords, and the facade inside other tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group

from kvworker import InvalidRequestError, KeyValueStore
from tests.support.processes import ProcessNode, ValkeyNode
from tests.support.user_worker import started_user_worker

pytestmark = pytest.mark.usefixtures("celery_setup")


@pytest.fixture
def user_app(valkey_node: ValkeyNode) -> Celery:
    """A user's own application on the same broker. Its tasks are in user_tasks.py."""
    app = Celery("user", broker=valkey_node.url, backend=valkey_node.url, set_as_current=False)
    app.conf.task_default_queue = "user"
    return app


@pytest.fixture
def user_worker(tmp_path: Path, kv_environ: Mapping[str, str], valkey_node: ValkeyNode) -> Iterator[ProcessNode]:
    node = started_user_worker(tmp_path, kv_environ, valkey_node.url, "user", "user")
    yield node
    node.teardown()


def test_a_chain_of_operations(store: KeyValueStore) -> None:
    steps = chain(
        store.signature("kv_set", {"namespace": "n", "key": "k", "value": {"a": 1}}),
        store.signature("kv_increment", {"namespace": "n", "key": "c", "delta": 5}),
        store.signature("kv_get", {"namespace": "n", "key": "k"}),
    )
    read = steps.apply_async().get(timeout=20)
    assert read == store.get("n", "k").to_dict()
    assert read["value"] == {"a": 1}
    assert store.get("n", "c").value == 5


def test_a_group_and_a_chord_whose_body_stores_the_results(store: KeyValueStore) -> None:
    counts = group(store.signature("kv_increment", {"namespace": "n", "key": f"c{i}"}) for i in range(5))
    body = store.signature("kv_set", {"namespace": "n", "key": "all"})
    stored = chord(counts, body).apply_async().get(timeout=20)
    assert [result["key"] for result in stored["value"]] == [f"c{i}" for i in range(5)]
    assert store.get("n", "all").value == stored["value"]


def test_a_pipeline_with_operation_ids_can_be_run_again(store: KeyValueStore) -> None:
    def run() -> Any:
        fields = {"namespace": "n", "key": "c", "ttl_seconds": 60}
        count = store.signature("kv_increment", {**fields, "idempotency_key": "count"})
        others = [store.signature("kv_increment", {"namespace": "n", "key": k, "idempotency_key": k}) for k in "ab"]
        keep = store.signature("kv_set", {"namespace": "n", "key": "last", "idempotency_key": "keep"})
        keep_all = store.signature("kv_set", {"namespace": "n", "key": "all", "idempotency_key": "keep all"})
        chain(count, keep).apply_async().get(timeout=20)
        operations = [{"tool": "kv_increment", "key": "d", "ttl_seconds": 60}]
        batch = store.signature("kv_batch", {"namespace": "n", "operations": operations, "idempotency_key": "batch"})
        keep_batch = store.signature("kv_set", {"namespace": "n", "key": "done", "idempotency_key": "keep batch"})
        chain(batch, keep_batch).apply_async().get(timeout=20)
        return chord(others, keep_all).apply_async().get(timeout=20)["replayed"]

    assert [run(), run()] == [False, True]
    assert (store.get("n", "c").value, store.get("n", "last").value["value"]) == (1, 1)  # type: ignore[call-overload,index]


def test_signatures_check_their_arguments(store: KeyValueStore) -> None:
    with pytest.raises(InvalidRequestError, match="needs the argument 'key'"):
        store.signature("kv_get", {"namespace": "n"})


def test_a_signature_in_a_users_own_chain(store: KeyValueStore, user_app: Celery, user_worker: ProcessNode) -> None:
    steps = chain(
        user_app.signature("user.shout", args=("hello",), queue="user"),
        store.signature("kv_set", {"namespace": "n", "key": "said", "idempotency_key": "chain-1"}),
        user_app.signature("user.keys_of", queue="user"),
    )
    assert steps.apply_async().get(timeout=20) == ["key", "namespace", "replayed", "value", "version"]
    assert store.get("n", "said").value == "HELLO"


def test_the_facade_inside_a_users_task(store: KeyValueStore, user_app: Celery, user_worker: ProcessNode) -> None:
    sent = [user_app.send_task("user.count", args=("c",), queue="user") for _ in range(3)]
    assert sorted(task.get(timeout=20) for task in sent) == [1, 2, 3]


def test_a_task_on_the_operations_own_worker_gets_an_error_that_names_the_fix(
    tmp_path: Path, kv_environ: Mapping[str, str], valkey_node: ValkeyNode, user_app: Celery
) -> None:
    node = started_user_worker(tmp_path, kv_environ, valkey_node.url, "both", "both,kv")
    try:
        for name in ("user.count", "user.count_in_a_pipeline"):
            error: Any = user_app.send_task(name, args=("c",), queue="both").get(timeout=20, propagate=False)
            assert type(error).__name__ == "NestedCallError"
            assert "store.signature" in str(error)
    finally:
        node.teardown()
