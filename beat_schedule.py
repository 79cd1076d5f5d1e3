"""What beat sends, as data: name, task, interval and expiry. Both times are in seconds and come from the settings.

A message expires with its interval, so messages do not pile up while the workers pause. It stores no result, because
no caller waits for one. The worker logs what it did.
"""

from __future__ import annotations

from typing import Any

from kvworker.messaging.wire import PRUNE_TASK, RECOMPUTE_TASK, SWEEP_TASK
from kvworker.settings import Settings


def beat_schedule(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return Celery's ``beat_schedule`` for these settings."""
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
