"""A fault of Celery's prefork pool that delays a worker's end, mended in place until a release mends it."""

from __future__ import annotations

from typing import Any

from celery.concurrency.asynpool import ResultHandler

_read_to_the_end = ResultHandler.on_stop_not_started
_RELEASED = 2**31 - 1


def patch_prefork_pool() -> None:
    """Mend Celery 5.7.0 in this process; calling it again changes nothing.

    A stopping worker gives up what no child has acknowledged yet, and reads results only as long as it waits
    for one. A child that takes such an operation all the same waits 30 s for its result to be read, the
    worker waits for the child, and a message that the worker has just taken waits for both.
    """
    ResultHandler.on_stop_not_started = _read_to_the_end_and_release_children


def _read_to_the_end_and_release_children(handler: Any) -> None:
    _read_to_the_end(handler)
    # Nothing is read from here on, so no child has anything to wait for.
    for counter in (handler.on_ready_counters or {}).values():
        counter.value = _RELEASED
