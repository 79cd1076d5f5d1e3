"""The example of leases and limits keeps to them."""

from __future__ import annotations

import time

from examples.leases import AGENTS, BURST, CALLS_AT_A_TIME, CALLS_PER_SECOND, run
from kvworker import InlineKeyValueStore


def test_the_agents_keep_to_the_limits_and_one_writes_the_report() -> None:
    began = time.monotonic()
    with InlineKeyValueStore() as store:
        api, writers = run(store)
        assert store.get("reports", "done").found
        assert not store.get("reports", "writing").found
    seconds = time.monotonic() - began
    assert len(writers) == 1
    assert api.calls == 3 * len(AGENTS) <= BURST + CALLS_PER_SECOND * seconds
    assert api.most_at_a_time <= CALLS_AT_A_TIME
