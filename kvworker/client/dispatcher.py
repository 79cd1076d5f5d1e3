"""A client's end of the queue: sends messages, resolves replies, tells what a timeout means.

Both facades stand on it. It belongs to one process: after a fork the child gets its own.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import Future
from typing import Any

from celery import current_task, states

from kvworker.client.coalescing import CoalescedMessage, Coalescer, GroupReply, is_coalescable
from kvworker.client.transport.message import Message
from kvworker.client.transport.publisher import Publisher
from kvworker.client.transport.replies import ReplyReader
from kvworker.errors import (
    KVStoreError,
    NestedCallError,
    OperationExpiredError,
    OperationFailedError,
    OperationTimeoutError,
    QueueUnavailableError,
    UnsupportedMessageError,
    rebuild_error,
)
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.clock import ServerClock
from kvworker.messaging.signing import MessageSigner
from kvworker.messaging.wire import decode_result, described, encode_request
from kvworker.model import OperationResult, new_operation_id
from kvworker.settings import Settings
from kvworker.tools import Tool
from kvworker.tools.policy import Policy

#: What Celery says of a task that a worker does not have.
_UNKNOWN_TASK = "NotRegistered"
#: What a copy of a message ends with before it comes to the database, where all copies meet.
_OF_ONE_COPY = frozenset({OperationExpiredError.__name__, _UNKNOWN_TASK})
#: A wait may end this much before the time that it was to end at.
_CLOCK_TOLERANCE_SECONDS = 0.01


class PendingReply:
    """An operation on its way; ``operation_id`` is what makes asking again safe."""

    def __init__(self, tool: Tool, operation_id: str, message: Message, provider: str = "") -> None:
        self.tool = tool
        self.provider = provider
        self.operation_id = operation_id
        self.message = message
        self.future: Future[Any] = Future()
        #: Whether it waits for other calls to go with.
        self.is_held = False

    def outcome(self, meta: dict[str, Any]) -> OperationResult:
        """The result, or the error that the worker raised, from what Celery stored."""
        if meta["status"] == states.SUCCESS:
            return decode_result(self.tool, meta["result"], self.operation_id)
        raise self._failure(meta)

    def timed_out(self) -> KVStoreError:
        """The error for a wait that ended without a result; from the deadline on it is not sent any more."""
        detail = self.message.last_problem
        if self.message.remaining_seconds() < _CLOCK_TOLERANCE_SECONDS and self.message.abandon():
            return QueueUnavailableError(self.operation_id, detail)
        return OperationTimeoutError(self.operation_id, detail)

    def remaining_seconds(self) -> float:
        """How long until the message's deadline; 0 if it has passed."""
        return self.message.remaining_seconds()

    def _failure(self, meta: dict[str, Any]) -> KVStoreError:
        failure = meta["result"]
        if not isinstance(failure, dict) or "exc_type" not in failure:
            return OperationFailedError(self.operation_id, f"task state {meta['status']}")
        name, args = failure["exc_type"], failure.get("exc_message") or ()
        if name in _OF_ONE_COPY and self.message.copies > 1:
            return OperationTimeoutError(self.operation_id, f"one copy of its message ended as {name}, another may not")
        if name == _UNKNOWN_TASK:
            return UnsupportedMessageError(
                f"the worker that took it does not know {self.tool.name}, so it was not applied: it is older than this"
                " program; update the workers"
            )
        error = rebuild_error(name, args if isinstance(args, list | tuple) else (args,))
        return error or OperationFailedError(self.operation_id, str(name))


class Dispatcher:
    """Sends operations to the workers of one configuration, from this process."""

    def __init__(self, settings: Settings) -> None:
        self.app = make_celery(settings)
        self._queue = settings.queue
        self._coalesces = settings.facade.coalesce_calls
        self._policy = Policy(settings.policies)
        self._signer = MessageSigner(settings.policies)
        # Time-ordered: task ids are operation ids by default, and the database writes ordered keys cheaper.
        self._task_id_prefix = new_operation_id()
        self._count = itertools.count()
        self.clock = ServerClock(self.app.backend.server_time)
        self._replies = ReplyReader(
            self.app.backend, self._task_id_prefix, self._send_again, self._send_lost, self.clock
        )
        self._coalescer = Coalescer(self._send_coalesced)
        self._publisher = Publisher(
            self.app,
            threads=settings.facade.sender_threads,
            queue_name=self._queue.queue_name,
            timeout_seconds=self._queue.connect_timeout_seconds,
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
        """Start an operation with checked arguments; it is not started by a worker after the timeout.

        ``may_wait`` permits waiting for the broker here, within the timeout; an event loop cannot. ``may_coalesce``
        may hold the call back to coalesce it: ``PendingReply.is_held`` says so, and the waiter must then call
        ``flush_coalesced``.
        """
        task_id = self._new_task_id()
        payload = encode_request(arguments, deadline=self.clock.now() + timeout_seconds, persona=persona)
        message = Message(
            task_name=tool.task_name,
            task_id=task_id,
            payload=self._signer.sign(tool, payload, operation_id=task_id),
            description=described(tool, arguments),
            give_up_at=time.monotonic() + timeout_seconds,
        )
        provider = self._policy.provider_of(persona) or ""
        reply = PendingReply(tool, arguments.get("idempotency_key", task_id), message, provider)
        self._replies.expect(task_id, reply)
        may_coalesce = may_coalesce and self._coalesces
        reply.is_held = may_coalesce and is_coalescable(tool, arguments) and self._coalescer.holds(reply)
        if not reply.is_held:
            self._publisher.send(message, may_wait=may_wait)
        return reply

    def flush_coalesced(self) -> None:
        """Send what waits for other calls. Never waits itself."""
        self._coalescer.send_waiting()

    def check_not_nested(self) -> None:
        """Refuse to wait inside a task for a worker that may be this very one.

        Raises:
            NestedCallError: the current task runs on a worker that consumes the operations' queue.
        """
        if not current_task or current_task.request.is_eager or current_task.request.called_directly:
            return
        app = current_task.app
        same_broker = app.conf.broker_url == self.app.conf.broker_url
        if same_broker and self._queue.queue_name in app.amqp.queues.consume_from:
            raise NestedCallError(
                f"task {current_task.name!r} runs on a worker that itself consumes the queue"
                f" {self._queue.queue_name!r}, so it could wait for its own slot: run it on a worker of other queues"
                " (celery worker -Q), or let the queue do the waiting with store.signature(...) in a chain"
            )

    def _new_task_id(self) -> str:
        return f"{self._task_id_prefix}-{next(self._count):08x}"

    def _send_coalesced(self, replies: list[PendingReply]) -> None:
        # By the sender's threads: whose thread this is may have less time than the others' calls.
        if len(replies) == 1:
            (reply,) = replies
            self._coalescer.begin(reply)
            self._publisher.send(reply.message, may_wait=False)
            return
        message = CoalescedMessage(self._new_task_id(), replies)
        group = GroupReply(message, replies, self._publisher.send_again, self._coalescer.learn)
        self._coalescer.begin(group, len(replies))
        self._replies.expect(message.task_id, group)
        self._publisher.send(message, may_wait=False)

    def _send_again(self, replies: list[PendingReply | GroupReply]) -> None:
        for message in _unanswered(replies):
            self._publisher.send_again(message)

    def _send_lost(self, replies: list[PendingReply | GroupReply]) -> None:
        if doubtful := [message for message in _unanswered(replies) if message.is_doubtful()]:
            self._publisher.send_lost(doubtful)

    def close(self) -> None:
        """Stop the threads and close the connections."""
        self._publisher.close()
        self._replies.close()


def _unanswered(replies: list[PendingReply | GroupReply]) -> list[Message]:
    """The messages of the calls among them, which wait each for itself even if they went together."""
    return [one.message for one in replies if isinstance(one, PendingReply) and not one.future.done()]
