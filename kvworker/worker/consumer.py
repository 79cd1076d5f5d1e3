"""What a worker's consumer does otherwise than Celery's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from celery.utils.log import get_task_logger
from celery.worker.consumer import Consumer

logger = get_task_logger(__name__)

#: Of the pauses between attempts to connect, in seconds. Celery's grow to half a minute, by two at a time.
_PAUSES = {"interval_start": 0.1, "interval_step": 0.2, "interval_max": 1.0}


class RobustConsumer(Consumer):
    """A consumer that finds a broker soon after it is back, and that no message ends.

    What raises while a message is taken ends a worker, puts the message back, and ends the next one that takes it.
    No redelivery is counted, since no task ever starts.
    """

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying again soon for as long as it takes."""
        conn.ensure_connection = partial(conn.ensure_connection, **_PAUSES)
        return super().ensure_connected(conn)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's handler of messages, and what becomes of those that it cannot take."""
        handle = super().create_task_handler(*arguments, **options)

        def handle_or_refuse(message: Any) -> None:
            try:
                handle(message)
            except self.connection_errors:
                raise
            except Exception as error:  # noqa: BLE001 - whatever Celery takes for granted of a message
                task, problem = message.headers.get("task"), type(error).__name__
                # No traceback, which could show what the message holds.
                logger.error("a malformed message for %s is refused: Celery cannot take it (%s)", task, problem)  # noqa: TRY400
                if not message.acknowledged:
                    message.reject_log_error(logger, self.connection_errors)

        return handle_or_refuse
