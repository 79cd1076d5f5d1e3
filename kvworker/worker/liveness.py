"""When a worker is alive: its main loop turns, and the slots of its pool come free."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from celery.concurrency.solo import TaskPool as SoloPool
from celery.worker import state

from kvworker.worker.heartbeat import Heartbeat

if TYPE_CHECKING:
    from kvworker.worker.readiness import Readiness


class Liveness:
    """Beats for a worker, from the places where its main loop passes.

    A pool whose slots are all taken, and that has started no task for as long, is wedged. No task of ours takes as
    long as the visibility timeout: its statements are bounded, and the broker delivers its message again by then.

    Args:
        worker: The worker.
        readiness: The worker's knowledge of its adapters.
        visibility_timeout_seconds: The setting of this name.
    """

    def __init__(self, worker: Any, readiness: Readiness, visibility_timeout_seconds: float) -> None:
        self._worker = worker
        self._readiness = readiness
        self._task_seconds = visibility_timeout_seconds
        self._loop_thread = threading.get_ident()
        self._started, self._last_start = -1, time.monotonic()
        # The pool solo runs its tasks in the main loop.
        longest = visibility_timeout_seconds if issubclass(worker.pool_cls, SoloPool) else 0.0
        self.heartbeat = Heartbeat("worker", f"worker {worker.hostname}", os.environ, longest_task_seconds=longest)

    def beat(self, broker_problem: str = "") -> None:
        """Beat, unless the pool is wedged. In another thread than the main loop's, do nothing.

        Args:
            broker_problem: Why the worker cannot consume, without a password; "" while it is connected.
        """
        if threading.get_ident() != self._loop_thread:
            return
        stuck_seconds = self._stuck_seconds()
        if stuck_seconds > self._task_seconds:
            self.heartbeat.give_up(f"no slot of the pool has come free for {self._task_seconds:.0f} s")
        else:
            self.heartbeat.beat(broker_problem or self._readiness.problem)

    def _stuck_seconds(self) -> float:
        now, started = time.monotonic(), state.all_total_count[0]
        slots = self._worker.max_concurrency or self._worker.pool.num_processes
        if started != self._started or len(state.reserved_requests) < slots:
            self._started, self._last_start = started, now
        return now - self._last_start
