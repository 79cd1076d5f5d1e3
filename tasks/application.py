"""The worker's Celery application: the shared one, with the task bodies and a quiet worker."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.apps.worker import Worker

from kvworker.celery_app import make_celery
from kvworker.settings import Settings
from tasks.maintenance import register_maintenance
from tasks.operations import register_operations
from tasks.pool_fixes import mend_prefork_pool
from tasks.runtime import Runtime
from tasks.strategy import use_strategy
from tasks.unacked import use_unacked_record


class QuietWorker(Worker):
    """A worker that says nothing to other workers: no gossip, no mingle, no event heartbeat.

    Operations need none of it, and every worker would pay for every other one's. ``celery inspect`` and
    Flower's control panel still work: they ask, and only then is there traffic.
    """

    def prepare_args(self, **kwargs: Any) -> dict[str, Any]:
        """Celery's worker arguments with the chatter off."""
        quiet = dict.fromkeys(("without_gossip", "without_mingle", "without_heartbeat"), True)
        return {**super().prepare_args(**kwargs), **quiet}


def make_worker_app(settings: Settings) -> Celery:
    """The worker application for these settings, with every task registered."""
    mend_prefork_pool()
    use_unacked_record()
    app = make_celery(settings)
    app.set_current()
    app.Worker = app.subclass_with_self(QuietWorker)
    runtime = Runtime(app, settings)
    register_operations(app, runtime)
    register_maintenance(app, runtime)
    use_strategy(app)
    return app
