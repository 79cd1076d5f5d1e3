"""Maintenance as tasks: sweep, recompute, prune. Each does what fits its time budget and logs what it did.

A message is about one adapter. Beat's names none: that is the default one, and the worker sends a message
for each other adapter that personas' operations run on.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, Task
from celery.utils.log import get_task_logger

from kvworker.adapters import KeyValueStoreAdapter
from kvworker.adapters.providers import adapters_in_use
from kvworker.errors import InvalidRequestError, StoreUnavailableError
from kvworker.messaging.wire import PRUNE_TASK, RECOMPUTE_TASK, SWEEP_TASK
from kvworker.model import check_namespace, shown_name
from kvworker.worker.runtime import Runtime

logger = get_task_logger(__name__)


def register_maintenance(app: Celery, runtime: Runtime) -> None:
    """Register the tasks that beat sends."""
    options: dict[str, Any] = {
        "bind": True,
        # All else, such as a missing grant, is somebody's to mend: Celery logs it as an error, on which nobody waits.
        "throws": (InvalidRequestError, StoreUnavailableError),
        "shared": False,
    }
    limits = runtime.settings.maintenance

    @app.task(name=SWEEP_TASK, **options)
    def sweep_expired(task: Task, adapter: str | None = None) -> dict[str, Any]:
        report = _adapter(runtime, task, adapter).sweep_expired(
            batch_rows=limits.sweep_batch_rows, budget_seconds=limits.sweep_budget_seconds
        )
        logger.info("sweep: %s", report)
        return report.to_dict()

    @app.task(name=PRUNE_TASK, **options)
    def prune_operations(task: Task, adapter: str | None = None) -> dict[str, Any]:
        report = _adapter(runtime, task, adapter).prune_operations(
            batch_rows=limits.prune_batch_rows, budget_seconds=limits.prune_budget_seconds
        )
        logger.info("prune: %s", report)
        return report.to_dict()

    @app.task(name=RECOMPUTE_TASK, **options)
    def recompute_ledgers(task: Task, after: str | None = None, adapter: str | None = None) -> dict[str, Any]:
        if after is not None:
            check_namespace(after)
        chosen = _adapter(runtime, task, adapter, is_first=after is None)
        report = chosen.recompute_ledgers(after=after, budget_seconds=limits.recompute_budget_seconds)
        for drift in report.drifts:
            logger.warning("ledger was wrong and is mended: %s", drift)
        if report.next_after is not None:
            _follow(task, after=report.next_after, adapter=adapter)
        return report.to_dict()


def _adapter(runtime: Runtime, task: Task, name: str | None, *, is_first: bool = True) -> KeyValueStoreAdapter:
    """The adapter that a message is about, after each other one has got its message.

    Raises:
        InvalidRequestError: what the message names is no name.
    """
    if not isinstance(name, str | None):
        raise InvalidRequestError(f"adapter must be the name of one, not {shown_name(name)}")
    if name is None and is_first:
        for other in adapters_in_use(runtime.settings)[1:]:
            _follow(task, adapter=other)
    return runtime.adapters.of(name)


def _follow(task: Task, **kwargs: str | None) -> None:
    """Send a task that does what this one leaves, and expires like the one that beat sent."""
    given = {name: value for name, value in kwargs.items() if value is not None}
    task.apply_async(kwargs=given, expires=task.request.expires, ignore_result=True)
