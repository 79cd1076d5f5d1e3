"""What beat sends, as data: name, task, interval and expiry in seconds, all from the settings.

Each message expires with its interval, so that a pause of the workers piles nothing up, and stores no
result, since nobody waits for it; the worker logs what was done.
"""

from __future__ import annotations

from typing import Any

from kvworker.messaging.wire import PRUNE_TASK, RECOMPUTE_TASK, SWEEP_TASK
from kvworker.settings import Settings


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Celery's ``beat_schedule`` for these settings."""
    maintenance = settings.maintenance
    intervals = {
        "sweep-expired": (SWEEP_TASK, maintenance.sweep_interval_seconds),
        "recompute-ledgers": (RECOMPUTE_TASK, maintenance.recompute_interval_seconds),
        "prune-operations": (PRUNE_TASK, maintenance.prune_interval_seconds),
    }
    return {
        name: {
            "task": task,
            "schedule": float(interval_seconds),
            "options": {"expires": float(interval_seconds), "ignore_result": True},
        }
        for name, (task, interval_seconds) in intervals.items()
    }
