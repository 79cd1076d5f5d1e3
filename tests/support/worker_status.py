"""The status that a worker reports over Celery's remote control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvworker import Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.wire import STATS_KEY
from tests.support.processes import wait_until


def worker_status(settings: Settings) -> dict[str, Any]:
    """Ask the only worker, until it answers."""
    app, answers = make_celery(settings), list[dict[str, Any]]()

    def has_answered() -> bool:
        replies = app.control.broadcast("stats", reply=True, timeout=5, limit=1) or ()
        answers.extend(stats[STATS_KEY] for reply in replies for stats in reply.values())
        return bool(answers)

    wait_until(has_answered, timeout_seconds=60, what="the worker's answer")
    return answers[0]


def outcomes(totals: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of operations by ``tool outcome reason``."""
    return {f"{n['tool']} {n['outcome']} {n['reason']}".strip(): n["count"] for n in totals["operations"]}
