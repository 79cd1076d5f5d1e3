"""The consumer of our workers: it reconnects quickly, survives any message, and logs no message body."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from celery.utils.log import get_task_logger
from celery.worker.consumer import Consumer
from celery.worker.consumer.consumer import MESSAGE_DECODE_ERROR
from kombu.utils.encoding import safe_repr

from kvworker.retries import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS
from kvworker.worker.late_messages import LateMessages

logger = get_task_logger(__name__)

#: kombu's options for the pauses between attempts to connect. Celery's default pauses grow by 2 s up to 30 s.
_CONNECT_PAUSES: Final = {
    "interval_start": FIRST_PAUSE_SECONDS,
    "interval_step": 2 * FIRST_PAUSE_SECONDS,
    "interval_max": MAX_PAUSE_SECONDS,
}


class _HiddenBody:
    """Stands in for a message body where Celery would log it: the body may hold a secret value."""

    def __repr__(self) -> str:
        return "(not shown)"


class RobustConsumer(Consumer):
    """A consumer that finds a broker soon after it is back, and that no message can end.

    Fault in Celery 5.7.0: an exception while receiving a message ends the worker and puts the message back, which
    then ends the next worker that receives it. Redeliveries are not counted, because no task ever starts. Undecodable
    bodies are reported as celery/celery#4308.
    """

    class Blueprint(Consumer.Blueprint):
        """Celery's steps of a consumer, except one.

        Where a queue is of RabbitMQ's quorum type, Celery makes 28 queues for delayed messages. They are useless with
        exchanges of the direct type, which ours are, as those of a queue that Celery makes by itself.
        """

        default_steps = tuple(step for step in Consumer.Blueprint.default_steps if "DelayedDelivery" not in str(step))

    def start(self) -> None:
        """Consume until the worker stops, while its adapters work."""
        self._withheld: list[str] = []
        self.follow_readiness()
        self.controller.readiness.watch(partial(self.call_soon, self.follow_readiness))
        super().start()

    def on_ready(self) -> None:
        """Follow what became known while there was no connection."""
        super().on_ready()
        self.follow_readiness()

    def follow_readiness(self) -> None:
        """Consume from the worker's queues if its adapters work, and from none otherwise.

        Queues that are selected are consumed from after each new connection too. A lost connection raises here, and
        ``on_ready`` continues after it.
        """
        queues = self.app.amqp.queues
        if self.controller.readiness.problem:
            selected = list(queues.consume_from)
            self._withheld += selected
            queues.deselect(selected)
            for name in selected if self.task_consumer else ():
                self.task_consumer.cancel_by_queue(name)
        else:
            withheld, self._withheld = self._withheld, []
            for name in withheld:
                queues.select_add(queues[name])
            for name in withheld if self.task_consumer else ():
                self.add_task_queue(name)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, and retry for as long as it takes, with short pauses."""
        conn.ensure_connection = partial(conn.ensure_connection, **_CONNECT_PAUSES)
        return super().ensure_connected(conn)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Return Celery's message handler, extended to refuse the messages that it raises for."""
        handle, drop_late = super().create_task_handler(*arguments, **options), LateMessages(self).drop

        def handle_or_refuse(message: Any) -> None:
            """Drop or handle a message, and refuse it if Celery raises anything but a connection error."""
            try:
                if not drop_late(message):
                    handle(message)
            except self.connection_errors:
                raise
            except Exception as error:  # noqa: BLE001 - Celery trusts messages, so it raises anything
                task, problem = message.headers.get("task"), type(error).__name__
                # No traceback, which could show what the message holds.
                logger.error("a malformed message for %s is refused: Celery cannot take it (%s)", task, problem)  # noqa: TRY400
                if not message.acknowledged:
                    message.reject_log_error(logger, self.connection_errors)

        return handle_or_refuse

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        """Refuse a message of an unknown format, and log its size instead of its body."""
        super().on_unknown_message(_HiddenBody(), message)

    def on_unknown_task(self, _body: Any, message: Any, exc: Exception) -> None:
        """Refuse a message for a task that this worker does not know, and log its size instead of its body."""
        super().on_unknown_task(_HiddenBody(), message, exc)

    def on_invalid_task(self, _body: Any, message: Any, exc: Exception) -> None:
        """Refuse a message that is invalid for its task, and log its size instead of its body."""
        super().on_invalid_task(_HiddenBody(), message, exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Drop a message that cannot be decoded, and log its size instead of its body."""
        logger.critical(
            MESSAGE_DECODE_ERROR,
            exc,
            message.content_type,
            message.content_encoding,
            safe_repr(message.headers),
            f"(not shown, {len(message.body)} bytes)",
            exc_info=True,
        )
        message.ack()
