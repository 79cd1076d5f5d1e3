"""Sends a Celery task again later, as ``Task.retry`` does, but without counting it as a retry."""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.exceptions import Retry


def times_sent_again(task: Task, header: str) -> int:
    """Return how often the running task was sent again for the reason that the header counts."""
    return int((task.request.headers or {}).get(header, 0))


def send_again(task: Task, header: str, countdown: float, reason: Exception) -> Retry:
    """Send the running task again with its id, chain and group.

    Args:
        task: The task that a worker runs now.
        header: The header that counts how often.
        countdown: Seconds until it may run.
        reason: Why, for the logs.

    Returns:
        What the task must raise to end this run.
    """
    headers = {**(task.request.headers or {}), header: times_sent_again(task, header) + 1}
    options: dict[str, Any] = {"countdown": countdown, "headers": headers}
    signature = task.signature_from_request(task.request, **options)
    signature.apply_async()
    return Retry(exc=reason, when=countdown, sig=signature)
