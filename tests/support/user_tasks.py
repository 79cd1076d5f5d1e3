"""A user's own Celery application, whose tasks use the store."""

from __future__ import annotations

import os
from functools import cache

from celery import Celery

from kvworker import KeyValueStore

app = Celery("user", broker=os.environ["USER_BROKER"], backend=os.environ["USER_BROKER"])
app.conf.task_default_queue = "user"


@cache
def store() -> KeyValueStore:
    return KeyValueStore.from_config()


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
