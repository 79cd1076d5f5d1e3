"""What a message must be before Celery takes it: a malformed one is refused instead of ending workers.

Celery trusts a message's shape. One without an id, or whose body is not arguments, keywords and options,
raises in the worker's main process; the worker ends or reconnects, its messages are restored, and it, or the
next worker, meets the same message again. No redelivery is counted, since no task ever starts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.exceptions import InvalidTaskError
from celery.utils.log import get_task_logger
from celery.worker.strategy import default

logger = get_task_logger(__name__)


def refusing_malformed(task: Task, app: Celery, consumer: Any) -> Callable[..., None]:
    """Celery's default strategy behind a check of the message; the ``Strategy`` of every task here."""
    handle = default(task, app, consumer)

    def handle_if_sound(message: Any, *arguments: Any) -> None:
        problem = _problem_of(message)
        if problem is None:
            try:
                handle(message, *arguments)
            except InvalidTaskError as error:
                problem = str(error)
        if problem is not None:
            # Celery would log the body as well, which holds the value.
            logger.error("a malformed message for %s is refused: %s", task.name, problem)
            message.reject_log_error(logger, consumer.connection_errors)

    return handle_if_sound


def _problem_of(message: Any) -> str | None:
    task_id = message.headers.get("id")
    if not isinstance(task_id, str) or not task_id:
        return "its id is no string"
    if not _are_time_limits(message.headers.get("timelimit")):
        return "its time limits are no pair of numbers"
    try:
        body = message.payload
    except Exception as error:  # noqa: BLE001 - decoders fail in as many ways as there are content types
        return f"its body cannot be decoded ({type(error).__name__})"
    return _problem_of_body(body)


def _problem_of_body(body: object) -> str | None:
    if not isinstance(body, list | tuple) or len(body) != 3:
        return "its body is not a list of arguments, keywords and options"
    args, kwargs, options = body
    if not (isinstance(args, list | tuple) and isinstance(kwargs, dict) and isinstance(options, dict)):
        return "its arguments are no list, or its keywords or options are no object"
    if not all(_are_signatures(options.get(name)) for name in ("callbacks", "errbacks", "chain")):
        return "its callbacks or its chain are no list of signatures"
    if not isinstance(options.get("chord"), dict | None):
        return "its chord is no signature"
    return None


def _are_time_limits(limits: object) -> bool:
    if not limits:
        return True
    return isinstance(limits, list) and len(limits) == 2 and all(isinstance(x, int | float | None) for x in limits)


def _are_signatures(callbacks: object) -> bool:
    if not callbacks:
        return True
    return isinstance(callbacks, list) and all(isinstance(one, dict) and "task" in one for one in callbacks)
