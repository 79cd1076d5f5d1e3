"""A user's Celery task with a rate limit that holds in the whole fleet."""

from __future__ import annotations

import time

import pytest
from celery import Celery, chord

from kvworker import KeyValueStore

RUNS = 12
#: As in ``tests.support.user_tasks``, which only a worker imports.
RUNS_PER_SECOND, RUNS_AT_ONCE = 4, 2


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=4"]


@pytest.mark.usefixtures("user_worker", "worker_node")
def test_a_task_over_the_limit_is_sent_again_and_not_counted_as_a_retry(store: KeyValueStore, user_app: Celery) -> None:
    runs = [user_app.signature("user.limited", args=("runs",), queue="user") for _ in range(RUNS)]
    body = user_app.signature("user.shout", args=("done",), queue="user", immutable=True)
    began = time.monotonic()
    canvas = chord(runs, body).apply_async()
    assert canvas.get(timeout=240) == "DONE"
    seconds = time.monotonic() - began
    # Each has run once, as its first try: the task allows no retry.
    assert sorted(result.get(timeout=60) for result in canvas.parent.results) == [[n, 0] for n in range(1, RUNS + 1)]
    assert store.get("n", "runs").value == RUNS
    assert RUNS_AT_ONCE + RUNS_PER_SECOND * seconds >= RUNS
