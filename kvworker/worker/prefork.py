"""The prefork pool of our workers, which stops without waiting for results that are no longer read.

The module's name is what Celery shows as the pool's name when a worker starts.
"""

from __future__ import annotations

from typing import Final

from celery.concurrency.asynpool import AsynPool, ResultHandler
from celery.concurrency.prefork import TaskPool

#: More results than any child sends, so that every child treats all of its results as read.
_ALL_READ: Final = 2**31 - 1


class ReleasingResultHandler(ResultHandler):
    """Releases the children once a stopping worker reads no more results.

    Fault in Celery 5.7.0: a stopping worker gives up the operations that no child has acknowledged yet, and reads
    results only while it waits for one. A child that starts such an operation nevertheless waits 30 s for its result
    to be read, and the worker waits for the child. No upstream report was found.
    ``tests/unit/worker/test_prefork.py`` fails when a release no longer needs this.
    """

    def on_stop_not_started(self) -> None:
        """Read the remaining results, then tell every child that all of its results were read."""
        super().on_stop_not_started()
        for counter in (self.on_ready_counters or {}).values():
            counter.value = _ALL_READ


class ReleasingPool(AsynPool):
    """Celery's pool of child processes with our result handler."""

    ResultHandler = ReleasingResultHandler


class PreforkPool(TaskPool):
    """Celery's prefork pool, which is the default, with our pool of child processes."""

    Pool = ReleasingPool
