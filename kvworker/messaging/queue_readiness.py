"""Checks that broker and results' server serve this process, for a route or a command that runs often."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import RedisError

from kvworker.errors import KVStoreError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.result_checks import refusal_by_results
from kvworker.settings import Settings, redacted_url
from kvworker.settings.urls import speaks_redis

#: The time for which an answer is reused, so that frequent questions cost the servers nothing.
KEPT_SECONDS: Final = 2.0


def check_broker(app: Any, settings: Settings) -> None:
    """Connect to the broker once, and log in.

    Args:
        app: The Celery application of ``make_celery``.
        settings: The same settings that it was made with.

    Raises:
        Exception: It cannot be used. The client libraries of brokers share no base class.
    """
    with app.connection_for_write(heartbeat=0) as connection:
        connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        if speaks_redis(settings.queue.broker_url):
            # The Redis client connects lazily.
            connection.default_channel.client.ping()


class QueueReadiness:
    """Tells whether calls could be sent and answered now. Thread-safe: concurrent questions share one check.

    Args:
        settings: Where broker and results' server are.
        check_more: A further check, which raises one of kvworker's errors: ``check_adapters``, for example.
    """

    def __init__(self, settings: Settings, check_more: Callable[[], object] = lambda: None) -> None:
        self._settings = settings
        self._app = make_celery(settings)
        self._check_more = check_more
        self._lock = threading.Lock()
        self._problem = ""
        self._checked_at = float("-inf")

    def problem(self) -> str:
        """Describe the problem, or return "". May wait for about ``queue.connect_timeout_seconds`` for each server.

        It names hosts, and never a password. Show it to operators only.
        """
        with self._lock:
            if time.monotonic() - self._checked_at > KEPT_SECONDS:
                self._problem = redacted_url(self._find_problem())
                self._checked_at = time.monotonic()
            return self._problem

    def _find_problem(self) -> str:
        try:
            check_broker(self._app, self._settings)
        except Exception as error:  # noqa: BLE001 - the client libraries of brokers share no base class
            return f"the broker {redacted_url(self._settings.queue.broker_url)} cannot be used: {error}"
        try:
            refusal = refusal_by_results(self._app.backend)
        except (RedisError, OSError) as error:
            return f"the results' server {redacted_url(self._settings.queue.result_backend)} cannot be used: {error}"
        if refusal is not None:
            return refusal.reason
        try:
            self._check_more()
        except KVStoreError as error:
            return str(error)
        return ""
