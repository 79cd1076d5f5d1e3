"""A worker whose slots are all busy continues as soon as one is free."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from kvworker import KeyValueStore
from tests.support.elapsed import finishes_within
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

CALLS = 60


@pytest.mark.parametrize("worker_arguments", [["--pool=threads", "-c1"], ["--pool=prefork", "-c1"]], ids=str)
def test_more_callers_than_slots(store: KeyValueStore, worker_node: WorkerNode, valkey_node: ValkeyNode) -> None:
    store.increment("n", "c", timeout=20)
    # The worker checks its slots once a second anyway, so a missed free slot would cost a second for each call.
    with ThreadPoolExecutor(8) as threads, finishes_within(CALLS / 4):
        values = list(threads.map(lambda _: store.increment("n", "c", timeout=60).value, range(CALLS)))
    assert sorted(values) == list(range(2, CALLS + 2))
    with valkey_node.client() as client:
        wait_until(lambda: client.hlen("kvworker.unacked") == 0, what="messages acknowledged")
        assert client.zcard("kvworker.unacked_index") == 0
