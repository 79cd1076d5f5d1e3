"""The operations as tasks: each body hands over to the runtime."""

from __future__ import annotations

from typing import Any

from celery import Celery, Task

from kvworker.errors import KVStoreError
from kvworker.messaging.wire import APPLY_MANY_TASK
from kvworker.tools import TOOLS, Tool
from kvworker.worker.runtime import Runtime


def register_operations(app: Celery, runtime: Runtime) -> None:
    """Register the task of each tool, and that of many calls at once."""
    for tool in TOOLS.values():
        _register(app, runtime, tool)

    @app.task(bind=True, name=APPLY_MANY_TASK, typing=False, shared=False, resultrepr_maxsize=0)
    def together(task: Task, /, **payload: Any) -> dict[str, Any]:
        return runtime.run_coalesced(task.request, payload)


def _register(app: Celery, runtime: Runtime, tool: Tool) -> None:
    # throws: a refusal is an answer, not a fault of the worker; Celery logs it without a traceback.
    # resultrepr_maxsize: results hold stored values, which may be secrets, and Celery logs results.
    @app.task(
        bind=True,
        name=tool.task_name,
        typing=False,
        shared=False,
        throws=(KVStoreError,),
        resultrepr_maxsize=0,
    )
    def operation(task: Task, /, *parents: Any, **payload: Any) -> dict[str, Any]:
        return runtime.run_operation(task.request, tool, parents, payload)
