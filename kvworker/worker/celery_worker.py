"""The Celery application, worker and connections that our workers use: the place where all our subclasses meet."""

from __future__ import annotations

import gc
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from billiard.process import current_process
from celery.apps.beat import Beat
from celery.apps.worker import Worker
from celery.backends import base as base_backend
from celery.backends import redis as redis_backend
from celery.concurrency import get_implementation
from celery.platforms import EX_FAILURE
from celery.signals import worker_init, worker_process_init, worker_process_shutdown, worker_shutdown
from celery.utils.log import get_logger
from celery.worker import state

from kvworker.__version__ import __version__
from kvworker.adapters import preload_kv_store_adapter
from kvworker.adapters.providers import adapters_in_use
from kvworker.errors import KVStoreError
from kvworker.fork_safety import with_own_property_locks
from kvworker.messaging.application import Application, BrokerAMQP, ignored_variables
from kvworker.messaging.celery_app import configure
from kvworker.messaging.json_log import is_json_wanted
from kvworker.messaging.log_lines import ErrorsByType, EscapedLogging
from kvworker.messaging.result_backend import use_result_backend
from kvworker.messaging.result_checks import refusal_by_results
from kvworker.messaging.wire import STATS_KEY
from kvworker.settings.environment import METRICS_VARIABLE, TRACES_VARIABLE
from kvworker.worker.consumer import RobustConsumer
from kvworker.worker.liveness import Liveness
from kvworker.worker.metrics_endpoint import MetricsEndpoint
from kvworker.worker.pools import settling_pool
from kvworker.worker.readiness import Readiness
from kvworker.worker.remote_control import RobustControl
from kvworker.worker.result_storage import WorkerResultBackend
from kvworker.worker.runtime import Runtime
from kvworker.worker.span_export import export_spans
from kvworker.worker.strategy import CheckedTask
from kvworker.worker.taking import WorkerConnection
from kvworker.worker.totals import Totals

if TYPE_CHECKING:
    from kvworker.settings import Settings


logger = get_logger(__name__)
_errors_by_type = ErrorsByType()
#: Celery's options for pools whose modules have other names.
_POOL_NAMES: Final = {"thread": "threads"}


class WorkerAMQP(BrokerAMQP):
    """Celery's messaging with a worker's connections."""

    Connection = WorkerConnection


class QuietWorker(Worker):
    """A worker that sends nothing to other workers: no gossip, no mingle, and a heartbeat only with ``--task-events``.

    Operations need none of it, and every worker would pay for every other one. ``celery inspect`` and
    Flower's control panel still work: they cause traffic only when they ask. Flower's lists need the events.
    """

    pool: Any
    pool_cls: Any
    concurrency: int
    hostname: str
    task_events: bool
    readiness: Readiness
    totals: Totals
    started_at: float
    metrics: MetricsEndpoint | None = None
    _early_warnings: Sequence[warnings.WarningMessage]
    liveness: Liveness

    def setup_defaults(self, **kwargs: Any) -> None:
        """Set Celery's defaults, with our pool in place of Celery's."""
        super().setup_defaults(**kwargs)
        self.pool_cls = settling_pool(get_implementation(self.pool_cls))

    def prepare_args(self, **kwargs: Any) -> dict[str, Any]:
        """Return Celery's worker arguments with the traffic between workers turned off."""
        quiet = {"without_gossip": True, "without_mingle": True, "without_heartbeat": not self.task_events}
        return {**super().prepare_args(**kwargs), **quiet}

    def on_before_init(self, quiet: bool = False, **kwargs: Any) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Prepare as Celery does. Where the log is JSON, it shows no banner, and its warnings wait for the log."""
        is_json = is_json_wanted(os.environ)
        with warnings.catch_warnings(record=True) if is_json else nullcontext([]) as early:
            super().on_before_init(quiet=quiet or is_json, **kwargs)
        self._early_warnings = early or []

    def install_platform_tweaks(self, worker: Any) -> None:
        """Handle signals as Celery does, and keep what its handlers print out of lines of JSON."""
        super().install_platform_tweaks(worker)
        if is_json_wanted(os.environ):
            sys.__stdout__ = Path(os.devnull).open("w", encoding="utf-8")  # type: ignore[misc]  # noqa: SIM115

    def on_start(self) -> None:
        """Start as Celery does, if the adapters can ever work. The pool and the consumer start after this.

        Raises:
            SystemExit: An adapter cannot serve until somebody changes something.
        """
        super().on_start()
        for warning in self._early_warnings:
            logger.warning("%s", warning.message)
        runtime: Runtime = self.app.runtime
        self.started_at = time.time()
        self.totals = runtime.observer = Totals()
        worker_process_init.connect(partial(_use_own_slot, self.totals), weak=False, dispatch_uid="kvworker.totals")
        for notice in (*runtime.settings.choices, *ignored_variables(os.environ)):
            logger.warning("%s", notice)
        self.readiness = Readiness(runtime.settings, partial(refusal_by_results, self.app.backend))
        self.liveness = Liveness(self, self.readiness, runtime.settings.queue.visibility_timeout_seconds)
        try:
            if where := os.environ.get(METRICS_VARIABLE, "").strip():
                self.metrics = MetricsEndpoint(where, self.hostname, self.status)
            if os.environ.get(TRACES_VARIABLE, "").strip() not in {"", "0"}:
                export_spans(self.hostname)
            self.liveness.heartbeat.start()
            self.readiness.check_at_start()
        except KVStoreError as error:
            logger.critical("this worker cannot serve: %s", error)
            self.liveness.heartbeat.end()
            raise SystemExit(EX_FAILURE) from None
        runtime.on_unavailable = self.readiness.report_failure

    def on_close(self) -> None:
        """Begin to stop as Celery does, and say so."""
        logger.info("stopping: what runs may end, and nothing new begins")
        self.liveness.heartbeat.stop()
        super().on_close()

    def on_stopped(self) -> None:
        """Stop as Celery does, and leave no heartbeat behind."""
        super().on_stopped()
        self.liveness.heartbeat.end()

    def stats(self) -> dict[str, Any]:
        """Return what ``celery inspect stats`` shows, without passwords, and ``status`` under ``wire.STATS_KEY``."""
        stats = super().stats()
        if isinstance(broker := stats.get("broker"), dict):
            # Celery removes one password, and the options may hold others.
            stats["broker"] = {name: shown for name, shown in broker.items() if name != "transport_options"}
        return {**stats, STATS_KEY: self.status()}

    def status(self) -> dict[str, Any]:
        """Return this worker's state as JSON-able data. Any thread of the main process may call it.

        Returns:
            ``queue``: the queue of the operations.

            ``queues``: the queues that it consumes from now.

            ``problem``: why it consumes nothing; "" if it can serve.

            ``version``: the version of kvworker.

            ``pool`` and ``concurrency``: the kind of its pool, and the number of slots that the pool has now.

            ``started_at``: when it started, in seconds since the epoch by its machine's clock.

            ``active`` and ``reserved``: how many tasks run, and how many messages it holds, those that run included.

            ``connections``: the connections of the main process to databases, each adapter's as ``busy``, ``idle`` and
            ``limit``. Pools of threads use no others; child processes have one or two each, which are not counted.

            ``totals``: what it has done since it started; see ``Totals.report``.
        """
        kind = self.pool_cls.__module__.rpartition(".")[-1]
        return {
            "queue": self.app.runtime.settings.queue.queue_name,
            "queues": list(self.app.amqp.queues.consume_from),
            "problem": self.readiness.problem,
            "version": __version__,
            "pool": _POOL_NAMES.get(kind, kind),
            "concurrency": self._slots(),
            "started_at": self.started_at,
            "active": len(state.active_requests),
            "reserved": len(state.reserved_requests),
            "connections": {name: asdict(use) for name, use in self.app.runtime.adapters.pool_use().items()},
            "totals": self.totals.report(),
        }

    def _slots(self) -> int:
        try:
            return int(self.pool.num_processes)
        except AttributeError:  # the pool has not started yet
            return int(self.concurrency)


class QuietBeat(Beat):
    """A beat that prints no banner among lines of JSON."""

    def __init__(self, *arguments: Any, quiet: bool = False, **options: Any) -> None:
        super().__init__(*arguments, quiet=quiet or is_json_wanted(os.environ), **options)


@with_own_property_locks
class WorkerApplication(Application):
    """The Celery application of workers and beat.

    Attributes:
        runtime: The state that the task bodies share.
    """

    amqp_cls = WorkerAMQP
    control_cls = RobustControl
    log_cls = EscapedLogging
    task_cls = CheckedTask
    runtime: Runtime


def make_worker_application(settings: Settings) -> WorkerApplication:
    """Make the current Celery application for a worker with these settings; it has no tasks of ours yet."""
    is_json_wanted(os.environ)  # refuses a format that does not exist before anything is logged in it
    app = WorkerApplication("kvworker", set_as_current=False)
    configure(app, settings)
    use_result_backend(app, WorkerResultBackend)
    app.set_current()
    app.Worker = app.subclass_with_self(QuietWorker)
    app.Beat = app.subclass_with_self(QuietBeat)
    app.conf.worker_consumer = f"{RobustConsumer.__module__}:{RobustConsumer.__name__}"
    app.runtime = Runtime(app, settings)
    for backend in (base_backend, redis_backend):
        get_logger(backend.__name__).addFilter(_errors_by_type)
    worker_init.connect(partial(_share_with_children, settings), weak=False, dispatch_uid="kvworker.share")
    # A pool of child processes uses the adapters in its children, any other pool in the main process.
    for ending in (worker_process_shutdown, worker_shutdown):
        ending.connect(partial(_close_adapters, app.runtime), weak=False, dispatch_uid="kvworker.close")
    return app


def _use_own_slot(totals: Totals, **_: object) -> None:
    """Count separately in a child of the pool. A child that replaces another one has its index.

    The pool solo calls this in the main process, which has no index.
    """
    totals.use_slot(1 + getattr(current_process(), "index", -1))


def _close_adapters(runtime: Runtime, **_: object) -> None:
    """Close the adapters' connections, so that SQLite moves what it has logged into the database's file."""
    runtime.adapters.close()


def _share_with_children(settings: Settings, **_: object) -> None:
    """Load what every child of the pool needs into the parent's memory, and exempt it from garbage collection.

    A child copies each page that it writes to, and the collector writes to every object that it visits.

    Python collects all objects once those that survived are a quarter of what the last such collection found. The last
    call here finds few. The exempt objects would count otherwise, and garbage add half to a worker's memory.
    """
    for name in adapters_in_use(settings):
        preload_kv_store_adapter(name)
    gc.collect()
    gc.freeze()
    gc.collect()
