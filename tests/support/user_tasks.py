"""A user's own Celery application, whose tasks use the store."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from celery import Celery, Task

from kvworker import KeyValueStore

app = Celery("user", broker=os.environ["USER_BROKER"], backend=os.environ["USER_BROKER"])
app.conf.task_default_queue = "user"


@cache
def store() -> KeyValueStore:
    return KeyValueStore.from_config()


#: Four runs a second, and two at once.
RUNS_PER_SECOND, RUNS_AT_ONCE = 4, 2


@app.task(name="user.limited", bind=True, acks_late=True, max_retries=0)
@KeyValueStore.from_config().rate_limited("limits", "user", RUNS_PER_SECOND, 1.0, burst=RUNS_AT_ONCE)
def limited(self: Task[Any, Any], key: str) -> list[Any]:
    assert isinstance(key, str)
    return [store().increment("n", key).value, self.request.retries]


@app.task(name="user.shout")
def shout(text: str) -> str:
    return text.upper()


@app.task(name="user.keys_of")
def keys_of(result: dict[str, object]) -> list[str]:
    return sorted(result)


@app.task(name="user.count")
def count(key: str) -> int:
    return store().increment("n", key).value


@app.task(name="user.count_in_a_pipeline")
def count_in_a_pipeline(key: str) -> int:
    with store().pipeline() as p:
        counted = p.increment("n", key)
    return counted.result().value
