"""A worker's readiness: it consumes only while its own adapters work, and it may store results.

A worker that took messages while its database is away would fail calls that a healthy worker could answer. A worker
that may not store results would apply operations and leave their callers without an answer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from typing import TYPE_CHECKING, Final

from celery.utils.log import get_logger
from redis.exceptions import RedisError

from kvworker.adapters import create_kv_store_adapter
from kvworker.adapters.providers import adapters_in_use
from kvworker.errors import ConfigurationError, KVStoreError, StoreUnavailableError
from kvworker.settings.adapters import SqlAdapterSettings

if TYPE_CHECKING:
    from kvworker.messaging.result_checks import Refusal
    from kvworker.settings import Settings

logger = get_logger(__name__)

#: The pause between two checks while the adapters work, unless an operation fails.
CHECK_SECONDS: Final = 15.0
#: The least pause between two checks.
RECHECK_SECONDS: Final = 0.5


def check_adapters(settings: Settings, *, may_migrate: bool = True) -> None:
    """Check that every adapter in use can run operations, on its own connections, which it closes.

    Args:
        settings: The settings of the adapters.
        may_migrate: True if ``migrate_on_start`` takes effect.

    Raises:
        StoreUnavailableError: An adapter cannot serve now, and may later.
        KVStoreError: An adapter cannot serve until somebody changes something.
    """
    for name in adapters_in_use(settings):
        _, config = settings.store.adapter_config(name)
        if isinstance(settings.store.adapters.get(name), SqlAdapterSettings):
            config["migrate_on_start"] &= may_migrate
        with create_kv_store_adapter(name, config) as adapter:
            adapter.check_usable()


class Readiness:
    """The knowledge of a worker's main process about its adapters. A thread keeps it up to date.

    Args:
        settings: The settings of the adapters.
        refusal_by_results: Returns what the results' server refuses; raises redis-py's errors if it is away.

    Attributes:
        problem: Why an operation would fail here, without a password; "" while it would not.
    """

    def __init__(self, settings: Settings, refusal_by_results: Callable[[], Refusal | None]) -> None:
        self.problem = ""
        self._settings = settings
        self._refusal_by_results = refusal_by_results
        self._was_ready = False
        # Each message that is consumed then frees memory, so the server would stay full if this worker stopped.
        self._queue_is_there = settings.queue.shares_server
        # Children of the pool inherit the pipe, so that they can report a failure to the main process.
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._stopping = threading.Event()

    def check_at_start(self) -> None:
        """Check the adapters before the worker consumes anything.

        Raises:
            KVStoreError: An adapter cannot serve until somebody changes something.
        """
        try:
            self._check_adapters()
        except StoreUnavailableError as error:
            self._set(str(error))

    def report_failure(self) -> None:
        """Have the adapters checked at once, because an operation failed. Any process of the worker may call it."""
        # A full pipe already holds a report.
        with suppress(OSError):
            os.write(self._writer, b"\0")

    def watch(self, on_change: Callable[[], object]) -> None:
        """Check the adapters from now on, in a thread.

        Args:
            on_change: Called in that thread after ``problem`` became empty, or is no longer empty.
        """
        threading.Thread(target=self._watch, args=[on_change], name="kvworker-readiness", daemon=True).start()

    def stop(self) -> None:
        """Check no more."""
        self._stopping.set()
        self.report_failure()

    def _watch(self, on_change: Callable[[], object]) -> None:
        with DefaultSelector() as selector:
            selector.register(self._reader, EVENT_READ)
            while not self._stopping.wait(RECHECK_SECONDS):
                if not self.problem:
                    selector.select(CHECK_SECONDS)
                with suppress(BlockingIOError):
                    os.read(self._reader, 65_536)
                if not self._stopping.is_set() and self._check():
                    on_change()

    def _check(self) -> bool:
        """Check the adapters, and return whether the worker may consume now and could not before, or the reverse."""
        try:
            self._check_adapters()
        except KVStoreError as error:
            return self._set(str(error))
        except Exception as error:  # noqa: BLE001 - an adapter of a plugin may raise anything
            return self._set(f"an adapter fails with {type(error).__name__}")
        return self._set("")

    def _check_adapters(self) -> None:
        self._check_results()
        check_adapters(self._settings, may_migrate=not self._was_ready)
        self._was_ready = True

    def _check_results(self) -> None:
        """Check that the results' server lets this worker store results. While it is away, they wait in the worker."""
        try:
            refusal = self._refusal_by_results()
        except (RedisError, OSError):
            return
        if refusal is not None and not (refusal.is_full and self._queue_is_there):
            kind = ConfigurationError if refusal.lasts else StoreUnavailableError
            raise kind(f"{refusal.reason}: {refusal.advice}")

    def _set(self, problem: str) -> bool:
        before, self.problem = self.problem, problem
        if problem and not before:
            logger.error("cannot serve, so this worker consumes nothing and keeps trying: %s", problem)
        if before and not problem:
            logger.warning("can serve again, so this worker consumes")
        return bool(before) != bool(problem)
