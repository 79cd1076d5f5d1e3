"""The worker's Celery application: the shared one, with the task bodies and a quiet worker."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

from celery import Celery
from celery.apps.worker import Worker
from celery.signals import worker_init

from kvworker.adapters import preload_kv_store_adapter
from kvworker.adapters.providers import adapters_in_use
from kvworker.messaging.celery_app import make_celery
from kvworker.settings import Settings
from kvworker.worker.celery_patches import patch_prefork_pool
from kvworker.worker.consumer import RobustConsumer
from kvworker.worker.runtime import Runtime
from kvworker.worker.strategy import use_strategy
from kvworker.worker.unacked import use_unacked_record
from tasks.maintenance import register_maintenance
from tasks.operations import register_operations


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
    patch_prefork_pool()
    use_unacked_record()
    app = make_celery(settings)
    app.set_current()
    app.Worker = app.subclass_with_self(QuietWorker)
    app.conf.worker_consumer = f"{RobustConsumer.__module__}:{RobustConsumer.__name__}"
    runtime = Runtime(app, settings)
    register_operations(app, runtime)
    register_maintenance(app, runtime)
    use_strategy(app)
    worker_init.connect(partial(_share_with_children, settings), weak=False, dispatch_uid="kvworker.share")
    return app


def _share_with_children(settings: Settings, **_: object) -> None:
    """Have what every child of the pool imports in the parent's memory, where the collector leaves it alone.

    A child copies a page that it writes to, and the collector writes to every object that it looks at.
    """
    for name in adapters_in_use(settings):
        preload_kv_store_adapter(name)
    gc.collect()
    gc.freeze()
