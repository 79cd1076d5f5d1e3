"""Maintenance as tasks: sweep, recompute, prune. Each does what fits its time budget and logs what it did."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.utils.log import get_task_logger

from kvworker.errors import KVStoreError
from kvworker.wire import PRUNE_TASK, RECOMPUTE_TASK, SWEEP_TASK
from tasks.runtime import Runtime

logger = get_task_logger(__name__)


def register_maintenance(app: Celery, runtime: Runtime) -> None:
    """Register the tasks that beat sends."""
    options: dict[str, Any] = {
        "throws": (KVStoreError,),
        "shared": False,
        "Strategy": "tasks.strategy:refusing_malformed",
    }
    limits = runtime.settings.maintenance

    @app.task(name=SWEEP_TASK, **options)
    def sweep_expired() -> dict[str, Any]:
        report = runtime.adapter.sweep_expired(
            batch_rows=limits.sweep_batch_rows, budget_seconds=limits.sweep_budget_seconds
        )
        logger.info("sweep: %s", report)
        return report.to_dict()

    @app.task(name=PRUNE_TASK, **options)
    def prune_operations() -> dict[str, Any]:
        report = runtime.adapter.prune_operations(
            batch_rows=limits.prune_batch_rows, budget_seconds=limits.prune_budget_seconds
        )
        logger.info("prune: %s", report)
        return report.to_dict()

    @app.task(bind=True, name=RECOMPUTE_TASK, **options)
    def recompute_ledgers(task: Any, after: str | None = None) -> dict[str, Any]:
        report = runtime.adapter.recompute_ledgers(after=after, budget_seconds=limits.recompute_budget_seconds)
        for drift in report.drifts:
            logger.warning("ledger was wrong and is mended: %s", drift)
        if report.next_after is not None:
            # The rest follows as a task of its own, which expires like the one that beat sent.
            task.apply_async(kwargs={"after": report.next_after}, expires=task.request.expires, ignore_result=True)
        return report.to_dict()
