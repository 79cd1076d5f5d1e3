"""A plain Celery application: tasks with the bodies of kvworker's operations, and tasks of a host program."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

from celery import Celery, Task

from kvworker import InlineKeyValueStore
from kvworker.tools import TOOLS

app = Celery("stock", broker=os.environ["STOCK_BROKER"], backend=os.environ["STOCK_BROKER"])
app.conf.update(task_default_queue="host", result_extended=True)


@cache
def store() -> InlineKeyValueStore:
    return InlineKeyValueStore.from_config()


def _body(tool: str) -> Callable[..., dict[str, Any]]:
    def run(task: Task, /, *parents: Any, **arguments: Any) -> dict[str, Any]:
        if parents:
            arguments.setdefault("value", parents[0])
        return store().call(tool, arguments)

    return run


for _tool in TOOLS:
    app.task(name=f"stock.{_tool}", bind=True)(_body(_tool))


@app.task(name="host.shout")
def shout(*texts: Any) -> str:
    *_, text = texts
    return text.upper() if isinstance(text, str) else f"a {type(text).__name__}"


@app.task(name="host.refuse")
def refuse(text: str) -> None:
    raise ValueError(text)


@app.task(name="host.on_failed_id")
def on_failed_id(task_id: str) -> str:
    """Return what an error callback of the old form got."""
    return task_id


@app.task(name="host.on_error")
def on_error(request: Any, exc: Exception, traceback: Any) -> None:
    """Store what an error callback of the new form got as its result, since Celery calls it as a plain function."""
    (errback,) = request.errbacks
    app.backend.store_result(errback["options"]["task_id"], [type(exc).__name__, str(exc), bool(traceback)], "SUCCESS")


@app.task(name="host.replaced", bind=True)
def replaced(task: Task, signature: dict[str, Any]) -> Any:
    return task.replace(app.signature(signature))


@app.task(name="host.sends", bind=True)
def sends(task: Task, signature: dict[str, Any]) -> str:
    app.signature(signature).apply_async()
    return "sent"
