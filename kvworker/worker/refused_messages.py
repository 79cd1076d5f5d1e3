"""Refusing a message: it is logged without its contents, answered if someone may wait for it, and settled."""

from __future__ import annotations

import json
from typing import Any

from celery import signals
from celery.utils.log import get_logger

from kvworker.errors import InvalidRequestError
from kvworker.messaging.envelope import is_name
from kvworker.messaging.observer import Event

logger = get_logger(__name__)


def refuse_message(consumer: Any, message: Any, problem: str, error: Exception | None = None) -> None:
    """Refuse a message that cannot be run.

    Args:
        consumer: The worker's consumer.
        message: The ``kombu.Message``.
        problem: The problem with it. It must not quote the message, which may hold a secret.
        error: The error that a waiting caller gets. By default an ``InvalidRequestError`` with the problem.
    """
    name, task_id = _identity(message)
    purpose, size = f"for {name}" if name else "without a task", len(message.body or "")
    logger.error("a malformed message %s is refused: %s (id %s, size in bytes: %d)", purpose, problem, task_id, size)
    consumer.app.runtime.observer.happened(Event.MALFORMED_REFUSED)
    if not message.acknowledged:
        message.reject_log_error(logger, consumer.connection_errors)
    signals.task_rejected.send(sender=consumer, message=message, exc=error)
    # Where senders prove who they are, a stranger's message must not fail the call whose id it names.
    is_answerable = error is not None or consumer.app.conf.task_serializer == "json"
    if task_id is not None and is_answerable and _is_whole(message):
        _answer(consumer.app.backend, task_id, error or InvalidRequestError(f"the message is refused: {problem}"))


def _identity(message: Any) -> tuple[str | None, str | None]:
    """Return the names of the message's task and of the message, each None if it cannot be shown."""
    source = message.headers
    if "task" not in source and isinstance(message._decoded_cache, dict):
        source = message._decoded_cache  # Celery's task protocol 1
    name, task_id = source.get("task"), source.get("id")
    return (name if is_name(name) else None, task_id if is_name(task_id) else None)


def _is_whole(message: Any) -> bool:
    """Tell whether the sender meant the message like this. A damaged one may be a copy of one that will be applied."""
    if message.errors:
        return True
    try:
        json.loads(message.body)
    except Exception:  # noqa: BLE001 - it may be anything
        return False
    return True


def _answer(backend: Any, task_id: str, error: Exception) -> None:
    try:
        backend.store_failure_once(task_id, error)
    except Exception as failure:  # noqa: BLE001 - the caller's wait then ends with its timeout
        logger.warning("the refusal of %s is not stored: %s", task_id, type(failure).__name__)
