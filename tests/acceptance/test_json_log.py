"""With ``--log-format json``, everything that a worker or a beat logs is an object on one line."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kvworker import KeyValueStore, KVStoreError, Settings
from tests.acceptance.conftest import POOLS
from tests.support.processes import ProcessNode, WorkerNode, wait_until

VALUE = "the-secret-value"


@pytest.fixture
def kv_environ(kv_environ: dict[str, str]) -> dict[str, str]:
    return {**kv_environ, "KVWORKER_LOG_FORMAT": "json"}


def events(node: ProcessNode) -> list[dict[str, Any]]:
    """Return the events that a process has logged. A line that is not an object fails."""
    found = [json.loads(line) for line in node.logs().splitlines()]
    assert all(isinstance(event, dict) and {"time", "level", "logger", "message"} <= set(event) for event in found)
    return found


def operations(node: ProcessNode) -> list[dict[str, Any]]:
    return [event for event in events(node) if "tool" in event]


@pytest.mark.parametrize("worker_arguments", POOLS, ids=str)
def test_a_workers_log_is_json_from_its_start_to_its_end(
    store: KeyValueStore, settings: Settings, worker_node: WorkerNode
) -> None:
    store.set("n", "k\x1b[2J", VALUE, idempotency_key="run-7")
    store.get("n", "k\x1b[2J")
    for refused in (
        lambda: store.set("n", "large", VALUE * 100_000),
        lambda: store.submit("kv_get", {"namespace": "n", "key": "k"}, timeout=0.000001).result(20),
    ):
        with suppress(KVStoreError):
            refused()
    with store.pipeline() as pipeline:
        for number in range(10):
            pipeline.set("n", f"k{number}", VALUE)
    store.dispatcher().app.send_task("no.such.task", [VALUE], queue=settings.queue.queue_name)
    wait_until(lambda: "no such task" in worker_node.logs(), what="the refusal")
    worker_node.stop()
    applied, read, refused_write, *_, batch = operations(worker_node)
    assert (
        applied
        | {
            "message": "kv_set applied",
            "tool": "kv_set",
            "namespace": "n",
            "key": "k\x1b[2J",
            "operation_id": "run-7",
            "outcome": "applied",
            "level": "INFO",
        }
        == applied
    )
    assert applied["milliseconds"] > 0
    assert applied["queue_milliseconds"] >= 0
    assert "operation_id" not in read
    assert (refused_write["outcome"], refused_write["reason"]) == ("refused", "namespace_quota")
    assert refused_write["error"]["type"] == "NamespaceQuotaExceededError"
    assert (batch["tool"], batch["key_count"], batch["keys"]) == ("kv_batch", 10, [f"k{number}" for number in range(8)])
    assert any("stopping" in event["message"] for event in events(worker_node))
    assert VALUE not in worker_node.logs()


def test_a_beats_log_is_json(beat: ProcessNode) -> None:
    wait_until(lambda: "beat: Starting" in beat.logs(), what="the start")
    beat.stop()
    assert any(event["message"] == "beat: Starting..." for event in events(beat))


def test_a_format_that_does_not_exist_ends_a_worker_with_one_line(tmp_path: Path, kv_environ: dict[str, str]) -> None:
    node = WorkerNode(tmp_path, {**kv_environ, "KVWORKER_LOG_FORMAT": "xml"}, POOLS[0])
    node.start()
    try:
        wait_until(lambda: node.exit_code is not None, what="the worker's end")
        assert node.logs() == "Error: KVWORKER_LOG_FORMAT should be text or json\n"
    finally:
        node.teardown()
