"""A user's own Celery application, whose tasks use the store."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
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


class DyingTask(store().OnceTask):  # type: ignore[misc] # Celery has no types
    """A task whose process dies after the outcome was recorded, once for an order that says so."""

    abstract = True

    def __call__(self, order: str, how: str, effects: str) -> Any:
        """Run the task, note it, and perhaps die before Celery gets the result."""
        result = super().__call__(order, how, effects)
        with Path(f"{effects}.runs").open("a", encoding="utf-8") as file:
            file.write(f"{order}\n")
        if order.startswith("dies"):
            with suppress(FileExistsError):
                Path(f"{effects}.{order}").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return result


@app.task(name="user.charge", bind=True, base=DyingTask, once_lease_seconds=3)
def charge(self: Task[Any, Any], order: str, how: str, effects: str) -> str:
    """Charge an order: a line in a file is the effect."""
    if how == "flaky" and self.request.retries == 0:
        raise self.retry(countdown=0)
    if how == "replaced":
        return str(self.replace(charge.si(order, "plain", effects)))
    with Path(effects).open("a", encoding="utf-8") as file:
        file.write(f"{order}\n")
    if how == "hangs":
        Path(f"{effects}.pid").write_text(str(os.getpid()))
        time.sleep(600)
    return f"receipt of {order}"


@app.task(name="user.mail", base=store().OnceTask)
def mail(receipts: list[str] | str, effects: str) -> list[str]:
    """Mail receipts: a line in the same file."""
    mailed = [receipts] if isinstance(receipts, str) else receipts
    with Path(effects).open("a", encoding="utf-8") as file:
        file.write(f"mail of {len(mailed)}\n")
    return mailed
