"""A busy worker is killed again and again: no message that it took is lost, and none is applied twice."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker import KeyValueStore
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

KILLS = 5
PARTS = 400


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
    parts = [store.signature("kv_increment", {"namespace": "n", "key": "c"}) for _ in range(PARTS)]
    with valkey_node.client() as broker:
        results = [part.apply_async() for part in parts]
        for kill in range(1, KILLS + 1):
            left = PARTS - kill * PARTS // (2 * KILLS)
            wait_until(lambda most=left: broker.llen("kv") < most, what="a busy worker")  # type: ignore[misc]
            assert broker.llen("kv"), "an idle worker waits for a message, which is another matter"
            worker_node.kill()
            worker_node.start()
        values = sorted(result.get(timeout=120)["value"] for result in results)
    assert values == list(range(1, PARTS + 1))
    assert store.get("n", "c", timeout=60).value == PARTS
