"""Pools that settle every message, whatever its task ends with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.concurrency.base import BasePool
from celery.concurrency.prefork import TaskPool as PreforkTaskPool
from celery.utils.log import get_logger

from kvworker.worker.prefork import PreforkPool

logger = get_logger(__name__)


class SettlingPool(BasePool):
    """Reports each outcome of a task to its request, so that it settles the message and frees the slot.

    Fault in Celery 5.7.0: only the prefork pool reports an exception that leaves Celery's code around a task. In any
    other pool its slot stays taken. Not reported upstream.
    """

    def apply_async(
        self,
        target: Callable[..., Any],
        args: Any = None,
        kwargs: Any = None,
        *,
        callback: Callable[..., Any],
        error_callback: Callable[..., Any],
        **options: Any,
    ) -> Any:
        """Run a task, as in Celery, and report an exception to ``error_callback``."""
        report = partial(_report, callback, error_callback)
        return super().apply_async(partial(_outcome, target), args, kwargs, callback=report, **options)


def _outcome(target: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return target(*args, **kwargs)
    except Exception:  # noqa: BLE001 - it is reported
        return ExceptionInfo()


def _report(callback: Callable[..., Any], error_callback: Callable[..., Any], outcome: Any) -> None:
    try:
        (error_callback if isinstance(outcome, ExceptionInfo) else callback)(outcome)
    except Exception as error:  # noqa: BLE001 - it would end the event loop of the pool solo
        # No traceback, which could show what the message holds.
        logger.error("the outcome of a task cannot be reported: %s", type(error).__name__)  # noqa: TRY400


def settling_pool(pool: type[BasePool]) -> type[BasePool]:
    """Return the pool to use in place of one of Celery's. Celery shows the same name for both.

    Args:
        pool: The pool that the worker was told to use.
    """
    if issubclass(pool, PreforkTaskPool):
        return PreforkPool if pool is PreforkTaskPool else pool
    return type(pool.__name__, (SettlingPool, pool), {"__module__": pool.__module__, "__doc__": pool.__doc__})
