"""The strategy of our tasks, Celery's term for how a worker starts a message: malformed ones are refused first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.utils.log import get_logger, get_task_logger
from celery.worker.strategy import default

from kvworker.worker.message_checks import problem_of
from kvworker.worker.request import OperationRequest
from kvworker.worker.unacked import acknowledging

logger = get_task_logger(__name__)
strategy = get_logger(default.__module__)


def refusing_malformed(task: Task, app: Celery, consumer: Any) -> Callable[..., None]:
    """Return Celery's default message handler behind a check of the message.

    Args:
        task: The task that the messages are for.
        app: Its application.
        consumer: The worker's consumer.
    """
    # An operation logs one line when it ends. Celery's line about its arrival is for debugging.
    handle = default(task, app, consumer, info=strategy.debug if task.logs_itself else strategy.info)
    acknowledging_here = acknowledging(consumer)

    def handle_if_sound(message: Any, body: Any, ack: Any, *arguments: Any) -> None:
        """Handle a sound message, and log and refuse any other without its body."""
        problem = problem_of(message)
        if problem is None:
            try:
                handle(message, body, acknowledging_here(message, ack), *arguments)
            except consumer.connection_errors:
                raise
            except Exception as error:  # noqa: BLE001 - Celery's own handler would log headers and body
                problem = f"Celery cannot take it ({type(error).__name__})"
        if problem is not None:
            # Celery would log the body as well, which holds the value.
            logger.error("a malformed message for %s is refused: %s", task.name, problem)
            message.reject_log_error(logger, consumer.connection_errors)

    return handle_if_sound


class CheckedTask(Task):
    """The base class of every task of a worker, Celery's own included: it accepts sound messages only."""

    abstract = True
    Strategy = staticmethod(refusing_malformed)
    Request = f"{OperationRequest.__module__}:{OperationRequest.__name__}"
    #: Whether the task's own code logs how it ended.
    logs_itself = False
