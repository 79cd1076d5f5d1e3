"""A client's end of the queue: sends messages, receives their replies, and sends lost messages again.

Both facades use it. It belongs to one process: a forked child makes its own.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

from celery import current_task

from kvworker import tracing
from kvworker.client.coalescing import CoalescedMessage, Coalescer, GroupReply, is_coalescable
from kvworker.client.in_flight import CallsInFlight
from kvworker.client.pending_reply import PendingReply
from kvworker.client.transport.message import Message
from kvworker.client.transport.publisher import Publisher
from kvworker.client.transport.replies import ReplyReader
from kvworker.client.transport.wake_ups import PermitWatch
from kvworker.errors import NestedCallError
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.clock import ServerClock
from kvworker.messaging.message_size import check_message_size
from kvworker.messaging.observer import CallObserver
from kvworker.messaging.signing import MessageSigner
from kvworker.messaging.waiting import waiting_header
from kvworker.messaging.wake_ups import freed_name
from kvworker.messaging.wire import described, encode_request
from kvworker.model import new_operation_id
from kvworker.settings import Settings
from kvworker.settings.urls import messaging_system
from kvworker.tools import Tool
from kvworker.tools.policy import Policy
from kvworker.tracing import MessageTrace


class Dispatcher:
    """Sends operations to the workers of one configuration, from this process."""

    def __init__(self, settings: Settings, observer: CallObserver | None = None) -> None:
        self.app = make_celery(settings)
        self._observer = observer or CallObserver()
        self._queue = settings.queue
        self._coalesces = settings.facade.coalesce_calls
        self._policy = Policy(settings.policies)
        self._signer = MessageSigner(settings.policies)
        # Time-ordered: task ids are operation ids by default, and ordered keys are cheaper for the database to write.
        self._task_id_prefix = new_operation_id()
        self._count = itertools.count()
        self.clock = ServerClock(self.app.backend.server_time)
        self._replies: ReplyReader[PendingReply | GroupReply] = ReplyReader(
            self.app.backend,
            self._task_id_prefix,
            on_reconnect=self._resend,
            on_recheck=self._recheck,
            clock=self.clock,
            on_refused=_refuse_all,
        )
        self.in_flight = CallsInFlight(settings.facade.max_calls_in_flight)
        self._coalescer = Coalescer(self._send_coalesced)
        self._publisher = Publisher(
            self.app,
            threads=settings.facade.sender_threads,
            queue_name=self._queue.queue_name,
            timeout_seconds=self._queue.connect_timeout_seconds,
            on_refused=self._refuse,
            happened=self._observer.happened,
        )

    def dispatch(
        self,
        tool: Tool,
        arguments: dict[str, Any],
        timeout_seconds: float,
        persona: str = "",
        *,
        may_wait: bool = True,
        may_coalesce: bool = False,
    ) -> PendingReply:
        """Start an operation. A worker does not start it after the timeout.

        Args:
            tool: The tool to run.
            arguments: Its checked arguments.
            timeout_seconds: The message's deadline in seconds from now.
            persona: The name under which a worker checks the call; "" for none.
            may_wait: Allows waiting for the broker here, within the timeout. An event loop must not.
            may_coalesce: Allows holding the call back to send it with others. The reply then has ``is_held`` set, and
                the waiter must call ``flush_held`` after ``MAX_DELAY_SECONDS``.

        Raises:
            InvalidRequestError: The message would be larger than ``queue.max_message_bytes``.
        """
        task_id = self._new_task_id()
        message = self._make_message(tool, arguments, timeout_seconds, persona, task_id)
        provider = self._policy.provider_of(persona) or ""
        reply = PendingReply(tool, arguments.get("idempotency_key", task_id), message, provider)
        self._replies.register(task_id, reply)
        if self._replies.refusal:
            # Its result could not be read.
            reply.refuse_answer(self._replies.refusal)
            return reply
        may_coalesce = may_coalesce and self._coalesces
        reply.is_held = may_coalesce and is_coalescable(tool, arguments) and self._coalescer.hold(reply)
        if not reply.is_held:
            self._send(reply, may_wait=may_wait)
        return reply

    def _send(self, reply: PendingReply, *, may_wait: bool) -> None:
        try:
            self._publisher.send(reply.message, may_wait=may_wait)
        except BaseException as error:
            reply.note_interruption(error)
            raise

    def _make_message(
        self, tool: Tool, arguments: dict[str, Any], timeout_seconds: float, persona: str, task_id: str
    ) -> Message:
        deadline = self.clock.now() + timeout_seconds
        payload = encode_request(arguments, deadline=deadline, persona=persona)
        check_message_size(arguments, payload, self._queue.max_message_bytes)
        return Message(
            task_name=tool.task_name,
            task_id=task_id,
            payload=self._signer.sign(tool, payload, operation_id=task_id),
            description=described(tool, arguments),
            give_up_at=time.monotonic() + timeout_seconds,
            waiting_header=waiting_header(
                deadline, timeout_seconds, arguments.get("idempotency_key", "") if tool.writes else ""
            ),
            trace=self._trace(tool, task_id),
        )

    def _trace(self, tool: Tool, task_id: str) -> MessageTrace | None:
        if tracing.active is None:
            return None
        system = messaging_system(self._queue.broker_url)
        return tracing.active.of_message(system, self._queue.queue_name, task_id, tool.name)

    def watch_permits(self, namespace: str, key: str, wake: Callable[[], object]) -> PermitWatch:
        """Call ``wake``, in the thread that reads answers, whenever a permit of a semaphore may be free."""
        channel = self.app.backend.get_key_for_task(freed_name(namespace, key))
        return self._replies.wake_ups.watch(channel if isinstance(channel, str) else channel.decode(), wake)

    def flush_held(self) -> None:
        """Send the calls that are held back. Does not wait."""
        self._coalescer.flush()

    def may_wait_for_turn(self) -> bool:
        """Tell whether this thread may wait in ``in_flight``. The callbacks of answers must not delay other answers."""
        return not self._replies.runs_here()

    def check_not_nested(self) -> None:
        """Check that the current task, if there is one, does not wait for the worker that it runs on.

        Raises:
            NestedCallError: The current task runs on a worker that consumes the operations' queue.
        """
        if not current_task or current_task.request.is_eager or current_task.request.called_directly:
            return
        app = current_task.app
        same_broker = app.conf.broker_url == self.app.conf.broker_url
        if same_broker and self._queue.queue_name in app.amqp.queues.consume_from:
            raise NestedCallError(
                f"task {current_task.name!r} runs on a worker that consumes the queue {self._queue.queue_name!r}, so it"
                " could wait for its own slot: run it on a worker of other queues (celery worker -Q), or put"
                " store.signature(...) into a chain"
            )

    def _new_task_id(self) -> str:
        return f"{self._task_id_prefix}-{next(self._count):08x}"

    def _send_coalesced(self, replies: list[PendingReply]) -> None:
        # The publisher's threads send it: the caller of this thread may have less time than the other callers.
        if len(replies) == 1:
            (reply,) = replies
            self._coalescer.track(reply)
            self._publisher.send(reply.message, may_wait=False)
            return
        self._observer.coalesced_message_sent(len(replies))
        message = CoalescedMessage(self._new_task_id(), replies)
        group = GroupReply(message, replies, self._publisher.resend, self._coalescer.record_outcome)
        self._coalescer.track(group, len(replies))
        self._replies.register(message.task_id, group)
        self._publisher.send(message, may_wait=False)

    def _refuse(self, message: Message) -> None:
        if reply := self._replies.find(message.task_id):
            reply.refuse()

    def _resend(self, replies: list[PendingReply | GroupReply]) -> None:
        for message in _unanswered(replies):
            self._publisher.resend(message)

    def _recheck(self, replies: list[PendingReply | GroupReply]) -> None:
        self.in_flight.drop_overdue()
        if doubtful := [message for message in _unanswered(replies) if message.is_doubtful()]:
            self._publisher.resend_lost(doubtful)

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self._publisher.close()
        self._replies.close()


def _refuse_all(replies: list[PendingReply | GroupReply], reason: str) -> None:
    # The calls of a coalesced message are among them individually.
    for reply in replies:
        if isinstance(reply, PendingReply):
            reply.refuse_answer(reason)


def _unanswered(replies: list[PendingReply | GroupReply]) -> list[Message]:
    """Return the messages of the unanswered calls. The calls of a coalesced message are among them individually."""
    return [reply.message for reply in replies if isinstance(reply, PendingReply) and not reply.future.done()]
