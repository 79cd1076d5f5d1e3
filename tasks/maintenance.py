"""The maintenance tasks: sweep, recompute and prune. Each works within its time budget and logs what it did.

A message is about one adapter. Beat's messages name none, which means the default adapter. The worker then sends a
message for each other adapter that runs operations of personas.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, Task
from celery.utils.log import get_task_logger

from kvworker.adapters import KeyValueStoreAdapter
from kvworker.adapters.providers import adapters_in_use
from kvworker.errors import InvalidRequestError, StoreUnavailableError
from kvworker.messaging.observer import Event
from kvworker.messaging.wire import PRUNE_TASK, RECOMPUTE_TASK, SWEEP_TASK
from kvworker.model import check_namespace, shown_name
from kvworker.worker.reporting import reporting_maintenance
from kvworker.worker.runtime import Runtime, runtime_of

logger = get_task_logger(__name__)


def sweep_expired(task: Task, adapter: str | None = None) -> dict[str, Any]:
    """Delete expired entries.

    Args:
        task: The Celery task, which the worker passes.
        adapter: The name of the adapter; the default adapter without one.

    Returns:
        The report as a dict.

    Raises:
        InvalidRequestError: ``adapter`` is not a name.
    """
    runtime = runtime_of(task)
    limits = runtime.settings.maintenance
    with reporting_maintenance(runtime.observer, "sweep") as run:
        report = _adapter(runtime, task, adapter).sweep_expired(
            batch_rows=limits.sweep_batch_rows, budget_seconds=limits.sweep_budget_seconds
        )
        run.rows, run.complete = report.deleted_rows, report.complete
    logger.info("sweep: %s", report)
    return report.to_dict()


def prune_operations(task: Task, adapter: str | None = None) -> dict[str, Any]:
    """Delete operation records past their retention. Arguments, result and errors are those of ``sweep_expired``."""
    runtime = runtime_of(task)
    limits = runtime.settings.maintenance
    with reporting_maintenance(runtime.observer, "prune") as run:
        report = _adapter(runtime, task, adapter).prune_operations(
            batch_rows=limits.prune_batch_rows, budget_seconds=limits.prune_budget_seconds
        )
        run.rows, run.complete = report.deleted_rows, report.complete
    logger.info("prune: %s", report)
    return report.to_dict()


def recompute_ledgers(task: Task, after: str | None = None, adapter: str | None = None) -> dict[str, Any]:
    """Set ledgers to what their entries use, and send another message for those that the time did not allow.

    Args:
        task: The Celery task, which the worker passes.
        after: The last namespace of the message before; without it, start with the first namespace.
        adapter: The name of the adapter; the default adapter without one.

    Returns:
        The report as a dict.

    Raises:
        InvalidRequestError: ``after`` is not a namespace, or ``adapter`` is not a name.
    """
    runtime = runtime_of(task)
    if after is not None:
        check_namespace(after)
    budget_seconds = runtime.settings.maintenance.recompute_budget_seconds
    with reporting_maintenance(runtime.observer, "recompute") as run:
        chosen = _adapter(runtime, task, adapter, is_first=after is None)
        report = chosen.recompute_ledgers(after=after, budget_seconds=budget_seconds)
        run.rows, run.complete = report.checked_namespaces, report.complete
    if report.drifts:
        runtime.observer.happened(Event.DRIFT, len(report.drifts))
    for drift in report.drifts:
        logger.warning("ledger was wrong and is corrected: %s", drift)
    if report.next_after is not None:
        _send_follow_up(task, after=report.next_after, adapter=adapter)
    return report.to_dict()


def register_maintenance(app: Celery) -> None:
    """Register the tasks that beat sends.

    Args:
        app: A worker's application, whose ``runtime`` the bodies use.
    """
    options: dict[str, Any] = {
        "bind": True,
        # Any other error, such as a missing grant, needs an operator, so Celery logs it as an error.
        "throws": (InvalidRequestError, StoreUnavailableError),
        "shared": False,
    }
    app.task(name=SWEEP_TASK, **options)(sweep_expired)
    app.task(name=PRUNE_TASK, **options)(prune_operations)
    app.task(name=RECOMPUTE_TASK, **options)(recompute_ledgers)


def _adapter(runtime: Runtime, task: Task, name: str | None, *, is_first: bool = True) -> KeyValueStoreAdapter:
    """Return the adapter that a message is about, after sending a message for each other one if it names none."""
    if not isinstance(name, str | None):
        raise InvalidRequestError(f"adapter must be the name of an adapter, not {shown_name(name)}")
    if name is None and is_first:
        for other in adapters_in_use(runtime.settings)[1:]:
            _send_follow_up(task, adapter=other)
    return runtime.adapters.of(name)


def _send_follow_up(task: Task, **kwargs: str | None) -> None:
    """Send a message for the same task, which expires as the one from beat did."""
    given = {name: value for name, value in kwargs.items() if value is not None}
    task.apply_async(kwargs=given, expires=task.request.expires, ignore_result=True)
