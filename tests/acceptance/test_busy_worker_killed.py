"""A busy worker is killed again and again: no message that it took is lost, and none is applied twice."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker import KeyValueStore
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

KILLS = 5
PARTS = 400
WRITERS = 8


@pytest.fixture
def config_overrides() -> dict[str, Any]:
    budgets = {f"{task}_budget_seconds": 3 for task in ("sweep", "recompute", "prune")}
    return {"queue": {"visibility_timeout_seconds": 5, "retry_seconds": 3}, "maintenance": budgets}


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=3"]


def test_a_busy_worker_that_is_killed_loses_no_signature(
    store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode
) -> None:
    """The facades send a lost message again; signatures are sent once."""
    items = [[writer, number] for number in range(PARTS // 2 // WRITERS) for writer in range(WRITERS)]
    parts = [
        store.signature(tool, {"namespace": "n", **arguments})
        for item in items
        for tool, arguments in (("kv_increment", {"key": "c"}), ("kv_append", {"key": "l", "items": [item]}))
    ]
    with valkey_node.client() as broker:
        results = [part.apply_async() for part in parts]
        for kill in range(1, KILLS + 1):
            left = PARTS - kill * PARTS // (2 * KILLS)
            wait_until(lambda most=left: broker.llen("kv") < most, what="a busy worker")  # type: ignore[misc]
            assert broker.llen("kv"), "an idle worker waits for a message, which is another matter"
            worker_node.kill()
            worker_node.start()
        answers = [result.get(timeout=120) for result in results]
    assert sorted(answer["value"] for answer in answers[::2]) == list(range(1, PARTS // 2 + 1))
    assert sorted(answer["length"] for answer in answers[1::2]) == list(range(1, PARTS // 2 + 1))
    assert store.get("n", "c", timeout=60).value == PARTS // 2
    appended: Any = store.get("n", "l", timeout=60).value
    assert sorted(appended) == sorted(items)
