"""A call that was sent: its future, and how its answer or the lack of one becomes a result or an error."""

from __future__ import annotations

import contextlib
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final

from celery import states

from kvworker.client.transport.message import Message
from kvworker.client.watching import UNWATCHED, CallWatch
from kvworker.errors import (
    RESULTS_REFUSED,
    KVStoreError,
    OperationExpiredError,
    OperationFailedError,
    OperationTimeoutError,
    QueueUnavailableError,
    UnsupportedMessageError,
    rebuild_error,
)
from kvworker.messaging.wire import decode_result
from kvworker.model import OperationResult
from kvworker.tools import Tool

#: Celery's error for a task that the worker does not define.
_UNKNOWN_TASK: Final = "NotRegistered"
#: Failures that a worker reports before it reaches the database. They say nothing about other copies of the message.
_FAILURES_BEFORE_DATABASE: Final = frozenset({OperationExpiredError.__name__, _UNKNOWN_TASK})
#: A wait may end this much before its time.
_CLOCK_TOLERANCE_SECONDS: Final = 0.01


class PendingReply:
    """A call whose answer is awaited. Repeating it with ``operation_id`` is safe."""

    def __init__(self, tool: Tool, operation_id: str, message: Message, provider: str = "") -> None:
        self.tool = tool
        self.provider = provider
        self.operation_id = operation_id
        self.message = message
        self.future: Future[Any] = Future()
        #: True while the coalescer holds the call back, to send it with others.
        self.is_held = False
        #: Follows a submitted call for an observer.
        self.watch: CallWatch = UNWATCHED

    def outcome(self, meta: dict[str, Any]) -> OperationResult:
        """Return the result that Celery stored.

        Args:
            meta: The task's metadata, as Celery's backend decodes it.

        Raises:
            KVStoreError: The error that the worker raised.
        """
        if meta["status"] == states.SUCCESS:
            return decode_result(self.tool, meta["result"], self.operation_id)
        raise self.failure(meta)

    def timeout_error(self) -> KVStoreError:
        """Return the error for a wait that ended without an answer.

        Once the deadline has passed, the message is abandoned: it is not sent any more. If the broker never had it,
        the operation is known not to be applied.
        """
        detail = self.message.last_problem
        error: KVStoreError = OperationTimeoutError(self.operation_id, detail, not self.tool.writes)
        if self.message.remaining_seconds() < _CLOCK_TOLERANCE_SECONDS:
            if self.message.abandon():
                error = QueueUnavailableError(self.operation_id, detail)
            self.watch.failed(error)
        return error

    def note_overdue(self) -> None:
        """End the call for its observer, because its deadline has passed and its caller does not wait for it."""
        if self.watch is not UNWATCHED:
            self.timeout_error()

    def refuse(self) -> None:
        """End the call with an error, because the broker refuses this program's login, unless it has a copy."""
        if self.message.abandon():
            self._fail(QueueUnavailableError(self.operation_id, self.message.last_problem))

    def refuse_answer(self, reason: str) -> None:
        """End the call with an error, because the results' server refuses this program's login or rights."""
        detail = RESULTS_REFUSED + reason
        if self.message.abandon():
            self._fail(QueueUnavailableError(self.operation_id, detail))
        else:
            self._fail(OperationTimeoutError(self.operation_id, detail, not self.tool.writes))

    def note_interruption(self, error: BaseException) -> None:
        """Give an exception that ends a wait, such as KeyboardInterrupt or a cancellation, the operation's id.

        The exception gets the attribute ``operation_id`` and a note that its traceback shows.
        """
        error.operation_id = self.operation_id  # type: ignore[attr-defined]
        if self.tool.writes:
            error.add_note(
                f"the call of {self.tool.name} was interrupted, so whether it was applied is unknown; call again with"
                f" idempotency_key={self.operation_id!r} to have it applied exactly once"
            )

    def expired(self) -> dict[str, Any]:
        """Return the metadata of a call whose coalesced message a worker dropped as too late."""
        waiting = self.message.waiting_header
        error = OperationTimeoutError if "operation_id" in waiting else OperationExpiredError
        return {"status": states.FAILURE, "result": {"exc_type": error.__name__, "exc_message": (self.operation_id,)}}

    def remaining_seconds(self) -> float:
        """Seconds until the message's deadline; 0 once it has passed."""
        return self.message.remaining_seconds()

    def _fail(self, error: KVStoreError) -> None:
        with contextlib.suppress(InvalidStateError):  # it has ended already
            self.future.set_exception(error)

    def failure(self, meta: dict[str, Any]) -> KVStoreError:
        """Return the error that Celery stored."""
        failure = meta["result"]
        if not isinstance(failure, dict) or "exc_type" not in failure:
            return OperationFailedError(self.operation_id, f"task state {meta['status']}")
        name, args = str(failure["exc_type"]), failure.get("exc_message") or ()
        if name in _FAILURES_BEFORE_DATABASE and self.message.copies > 1:
            detail = f"one copy of its message ended as {name}, but another may be applied"
            return OperationTimeoutError(self.operation_id, detail, not self.tool.writes)
        if name == _UNKNOWN_TASK:
            return UnsupportedMessageError(
                f"the worker does not know {self.tool.name}, so it was not applied; it is older than this program:"
                " update the workers"
            )
        error = rebuild_error(name, args if isinstance(args, list | tuple) else (args,))
        return error or OperationFailedError(self.operation_id, name)
