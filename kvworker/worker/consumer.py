"""The consumer of our workers: it reconnects quickly, survives any message, and logs no message's contents."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from amqp.exceptions import AccessRefused, PreconditionFailed
from celery import signals
from celery.concurrency.solo import TaskPool as SoloPool
from celery.exceptions import NotRegistered
from celery.platforms import EX_FAILURE
from celery.utils.log import get_logger
from celery.worker.consumer import Consumer
from redis.exceptions import NoPermissionError

from kvworker.messaging.amqp_transport import HEARTBEAT_SECONDS
from kvworker.messaging.checked_message import RefusedContentError
from kvworker.messaging.envelope import is_name
from kvworker.messaging.observer import Event
from kvworker.retries import FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS
from kvworker.worker.late_messages import LateMessages
from kvworker.worker.refused_messages import refuse_message

if TYPE_CHECKING:
    from kvworker.worker.liveness import Liveness

logger = get_logger(__name__)

#: kombu's options for the pauses between attempts to connect. Celery's default pauses grow by 2 s up to 30 s.
_CONNECT_PAUSES: Final = {
    "interval_start": FIRST_PAUSE_SECONDS,
    "interval_step": 2 * FIRST_PAUSE_SECONDS,
    "interval_max": MAX_PAUSE_SECONDS,
}
#: The pause after the broker refused what a worker needs in order to consume.
_REFUSED_PAUSE_SECONDS: Final = 1.0
#: Refusals that stay until somebody changes something: of rights, and of a queue that exists with other arguments.
_LASTING_REFUSALS: Final = (AccessRefused, NoPermissionError, PreconditionFailed)
#: Brokers close the connection if a control command names another.
_EXCHANGE_TYPES: Final = (None, "direct", "topic", "fanout", "headers")


class RobustConsumer(Consumer):
    """A consumer that finds a broker soon after it is back, and that no message can end.

    Fault in Celery 5.7.0: an exception while receiving a message ends the worker and puts the message back, which
    then ends the next worker that receives it. Redeliveries are not counted, because no task ever starts. Undecodable
    bodies are reported as celery/celery#4308.
    """

    class Blueprint(Consumer.Blueprint):
        """Celery's steps of a consumer, except one.

        For quorum queues on RabbitMQ, Celery makes 28 queues for delayed messages. They are useless with exchanges of
        the direct type. Ours are of that type, and so is the exchange of a queue that Celery makes automatically.
        """

        default_steps = tuple(step for step in Consumer.Blueprint.default_steps if "DelayedDelivery" not in str(step))

    amqheartbeat: float

    def start(self) -> None:
        """Consume until the worker stops, while its adapters work."""
        if self.amqheartbeat and not isinstance(self.pool, SoloPool):
            # Celery's 120 s find a silently lost connection after minutes. The pool solo runs its tasks where the
            # heartbeats are sent, so a long one would cost the connection.
            self.amqheartbeat = HEARTBEAT_SECONDS
        self._withheld: list[str] = []
        self._was_ready = False
        self.follow_readiness()
        self.controller.readiness.watch(partial(self.call_soon, self.follow_readiness))
        self._liveness: Liveness = self.controller.liveness
        if self.hub:
            self.hub.call_repeatedly(self._liveness.heartbeat.beat_seconds, self._liveness.beat)
        super().start()

    def perform_pending_operations(self) -> None:
        """Do what Celery's blocking loop, which pools of green threads use, does in each turn, and beat."""
        super().perform_pending_operations()
        if not self.hub:
            self._liveness.beat()

    def on_ready(self) -> None:
        """Act on changes of readiness that were found while the connection was away."""
        super().on_ready()
        self._was_ready = True
        self.follow_readiness()
        self._liveness.beat()

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Continue after a lost connection, and pause first if the broker refused what a worker needs.

        Raises:
            SystemExit: It refused so at the start, and will until somebody changes something.
        """
        is_refusal = isinstance(exc, self.channel_errors)
        self.app.runtime.observer.happened(Event.BROKER_REFUSED if is_refusal else Event.BROKER_LOST)
        # A broker that refuses again and again never lets the loop begin.
        self._liveness.beat(f"the broker refuses what this worker needs, or was lost ({type(exc).__name__})")
        if not is_refusal:
            super().on_connection_error_after_connected(exc)
        elif isinstance(exc, _LASTING_REFUSALS) and not self._was_ready:
            logger.critical("this worker cannot serve: the broker refuses what it needs to consume: %s", exc)
            raise SystemExit(EX_FAILURE)
        else:
            logger.error("the broker refuses what this worker needs to consume, trying again: %s", exc)
            time.sleep(_REFUSED_PAUSE_SECONDS)

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

    def add_task_queue(self, queue: Any, *arguments: Any, **options: Any) -> None:
        """Consume from one more queue. If a control command names one that this worker cannot, log it.

        Fault in Celery 5.7.0: whatever that raises ends the worker. RabbitMQ closes the channel if the queue exists
        with other arguments, so the worker connects again without it. Not reported upstream.
        """
        queues = self.app.amqp.queues
        exchange_type = arguments[1] if len(arguments) > 1 else None
        if not is_name(queue) or exchange_type not in _EXCHANGE_TYPES:
            logger.error("a remote-control command names a queue, or the type of its exchange, by what is no name")
            return
        is_ours = queue in queues
        try:
            super().add_task_queue(queue, *arguments, **options)
        except Exception as error:
            if is_ours:
                raise
            logger.error("the queue %s of a remote-control command cannot be used: %s", queue, type(error).__name__)  # noqa: TRY400
            # A queue that stays selected is declared again after each new connection, and may end that as well.
            queues.deselect(queue)
            queues.pop(queue, None)
            if isinstance(error, (*self.connection_errors, *self.channel_errors)):
                raise ConnectionResetError("the broker closed the connection or the channel") from None

    def cancel_task_queue(self, queue: Any) -> None:
        """Stop consuming from a queue that a control command names."""
        if is_name(queue):
            super().cancel_task_queue(queue)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, and retry for as long as it takes, with short pauses, and beat meanwhile."""
        conn.ensure_connection = partial(self._keep_connecting, conn.ensure_connection)
        return super().ensure_connected(conn)

    def _keep_connecting(
        self,
        ensure_connection: Callable[..., Any],
        *arguments: Any,
        callback: Callable[[], object] = lambda: None,
        **options: Any,
    ) -> Any:
        def beat() -> None:
            callback()
            self._liveness.beat(f"the broker {self.conninfo.as_uri()} is away")

        return ensure_connection(*arguments, callback=beat, **{**_CONNECT_PAUSES, **options})

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
                # No traceback, which could show what the message holds.
                refuse_message(self, message, f"Celery cannot take it ({type(error).__name__})")

        return handle_or_refuse

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        """Refuse a message that names no task. Celery would log its headers and its body."""
        refuse_message(self, message, "it names no task")

    def on_unknown_task(self, _body: Any, message: Any, exc: Exception) -> None:
        """Refuse a message for a task that this worker does not know. Celery would log its headers and its body."""
        problem = "this worker has no such task; one that follows an operation must name its own queue"
        refuse_message(self, message, problem, NotRegistered(*exc.args))
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=exc.args[0], id=message.headers.get("id"))

    def on_invalid_task(self, _body: Any, message: Any, exc: Exception) -> None:
        """Refuse a message that is invalid for its task. Celery would log its body."""
        refuse_message(self, message, f"it does not fit its task ({type(exc).__name__})")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Refuse a message that cannot be decoded. Celery would log its headers and its body."""
        problem = str(exc) if isinstance(exc, RefusedContentError) else f"it cannot be decoded ({type(exc).__name__})"
        refuse_message(self, message, problem)
