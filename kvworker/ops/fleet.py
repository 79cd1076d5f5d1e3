"""Asks every worker on the broker whether it can serve, over Celery's remote control."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.wire import STATS_KEY
from kvworker.settings import Settings

#: How long to collect answers: the number of workers is not known.
_COLLECT_SECONDS: Final = 2.0


@dataclass(frozen=True)
class WorkerAnswer:
    """A worker's answer: its name, and why it consumes nothing; "" if it can serve."""

    name: str
    problem: str


def ask_workers(settings: Settings) -> list[WorkerAnswer]:
    """Ask the workers that serve this store's queue.

    Workers of an older release, and those of other stores and programs on the same broker, are left out.

    Returns:
        The answers in order of the workers' names; none if ``queue.remote_control`` is off.
    """
    if not settings.queue.remote_control:
        return []
    stats: dict[str, Any] = make_celery(settings).control.inspect(timeout=_COLLECT_SECONDS).stats() or {}
    answers = {name: answer.get(STATS_KEY) for name, answer in stats.items() if isinstance(answer, dict)}
    return [
        WorkerAnswer(name, str(answer.get("problem", "")))
        for name, answer in sorted(answers.items())
        if isinstance(answer, dict) and answer.get("queue") == settings.queue.queue_name
    ]
