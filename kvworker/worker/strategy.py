"""How a worker takes messages: a malformed one is refused before Celery looks at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.utils.log import get_task_logger
from celery.worker.consumer import consumer as celery_consumer
from celery.worker.strategy import default

from kvworker.worker.message_checks import problem_of
from kvworker.worker.unacked import acknowledging

logger = get_task_logger(__name__)

_PATH = "kvworker.worker.strategy:refusing_malformed"


def use_strategy(app: Celery) -> None:
    """Have every task of the application, Celery's own included, take only sound messages.

    What Celery itself refuses, such as a task that this worker does not know, it logs without the body.
    """
    for task in app.tasks.values():
        task.Strategy = _PATH
    celery_consumer.dump_body = _size_of_body


def refusing_malformed(task: Task, app: Celery, consumer: Any) -> Callable[..., None]:
    """Celery's default strategy behind a check of the message."""
    handle = default(task, app, consumer)

    acknowledging_here = acknowledging(consumer)

    def handle_if_sound(message: Any, body: Any, ack: Any, *arguments: Any) -> None:
        problem = problem_of(message)
        if problem is None:
            try:
                handle(message, body, acknowledging_here(message, ack), *arguments)
            except consumer.connection_errors:
                raise
            except Exception as error:  # noqa: BLE001 - before Celery's own handler, which would log headers and body
                problem = f"Celery cannot take it ({type(error).__name__})"
        if problem is not None:
            # Celery would log the body as well, which holds the value.
            logger.error("a malformed message for %s is refused: %s", task.name, problem)
            message.reject_log_error(logger, consumer.connection_errors)

    return handle_if_sound


def _size_of_body(message: Any, _body: object) -> str:
    return f"(not shown, {len(message.body)} bytes)"
