from __future__ import annotations

from typing import Any

import pytest

from kvworker.messaging.wire import STATS_KEY
from kvworker.ops.fleet import WorkerAnswer


def test_an_answer_tells_pool_and_version() -> None:
    stats = {
        "pool": {"implementation": "celery.concurrency.thread:TaskPool", "max-concurrency": 4},
        "uptime": 61,
        STATS_KEY: {"queue": "kv", "version": "0.2.0", "active": 3, "problem": "postgresql://u:secret@host is away"},
    }
    answer = WorkerAnswer.of("worker@host", stats)
    assert (answer.pool, answer.version, answer.concurrency, answer.uptime_seconds) == ("threads", "0.2.0", 4, 61)
    assert answer.active == 3
    assert answer.problem == "postgresql://u:***@host is away"


@pytest.mark.parametrize(
    "stats",
    [
        None,
        "text",
        [],
        {},
        {"pool": 1, "uptime": "long", STATS_KEY: [1]},
        {"pool": {"implementation": {}, "max-concurrency": -1}, "uptime": float("nan"), STATS_KEY: {"version": None}},
        {"pool": {"implementation": 7, "max-concurrency": 10**400}, "uptime": True, STATS_KEY: {"active": "many"}},
    ],
)
def test_an_answer_may_hold_anything(stats: Any) -> None:
    answer = WorkerAnswer.of("worker@host", stats)
    assert (answer.concurrency, answer.uptime_seconds, answer.problem) == (0, 0, "")
    assert answer.active in {None, 0}
