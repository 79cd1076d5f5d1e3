from __future__ import annotations

from typing import Any

import pytest

from kvworker.messaging.wire import STATS_KEY
from kvworker.ops.fleet import WorkerAnswer, outdated_text


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


@pytest.mark.parametrize(
    ("schema", "known", "is_outdated"), [("0005", "0004", True), ("0004", "0005", False), ("0003", "0004", False)]
)
def test_a_worker_that_is_too_old_for_the_schema_is_told_apart(schema: str, known: str, is_outdated: bool) -> None:
    said = f"the database's schema is of version {schema}, and this program works with {known}"
    problem = f"{said}; run `kvworker migrate` with the newest version of the program"
    assert outdated_text(problem) == (said if is_outdated else "")
    assert outdated_text("the database is away") == ""
    shown = f"{said}; replace this worker" if is_outdated else problem
    assert WorkerAnswer.of("w", {STATS_KEY: {"problem": problem}}).problem == shown
