"""A task message and its delivery state: may the broker have it, and must it be sent again?

An attempt to publish may fail after the broker accepted the message. The broker or a worker may also lose a message.
So a message whose answer is overdue is *doubtful* and may be sent again, and several copies of it may exist. This is
safe because all copies have the same operation id.

The number of copies decides which error a caller gets. If none was written, the operation is known not to be applied.
Otherwise its outcome is unknown.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from celery import Celery
from redis.exceptions import ResponseError

from kvworker.messaging.wire import WAITING
from kvworker.tracing import MessageTrace

#: The age at which an unanswered first copy becomes doubtful.
_DOUBTFUL_SECONDS: Final = 2.0


@dataclass(eq=False)
class Message:
    """A task message from its first attempt until its answer or its deadline. Thread-safe.

    Attributes:
        give_up_at: The deadline, by the monotonic clock.
        waiting_header: Tells a worker how long the message may wait; see ``kvworker.messaging.waiting``.
        trace: Continues the caller's trace in the worker; None without one.
        last_problem: The last failure to send it, for the caller's error.
        copies: The number of copies that the broker may have. More than 1 after an attempt with an unknown outcome, or
            after the message was sent again.
        delivery_tag: The broker's name for the last copy, where the transport gives one.
    """

    task_name: str
    task_id: str
    payload: dict[str, Any]
    description: str
    give_up_at: float
    waiting_header: Mapping[str, Any] = field(default_factory=dict)
    trace: MessageTrace | None = None
    last_problem: str = ""
    copies: int = 0
    delivery_tag: str = ""
    _written_at: float = 0.0
    _is_sending: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _abandoned: threading.Event = field(default_factory=threading.Event)

    def as_task(self, app: Celery) -> Any:
        """Return Celery's ``task_message`` (headers, properties, body, sent event), as ``app.send_task`` makes it."""
        task = app.amqp.create_task_message(
            self.task_id, self.task_name, kwargs=self.body(), argsrepr="()", kwargsrepr=self.description
        )
        if self.waiting_header:
            task.headers[WAITING] = self.waiting_header
        if self.trace is not None:
            task.headers.update(self.trace.headers)
        return task

    def body(self) -> dict[str, Any]:
        """Return the payload to send now."""
        return self.payload

    def record_problem(self, problem: str) -> None:
        """Record why an attempt failed."""
        self.last_problem = problem

    def record_delivery_tag(self, delivery_tag: str) -> None:
        """Record the delivery tag of the copy that is about to be written."""
        self.delivery_tag = delivery_tag

    def remaining_seconds(self) -> float:
        """Seconds until the deadline; 0 once it has passed."""
        return max(0.0, self.give_up_at - time.monotonic())

    def abandon(self) -> bool:
        """Stop sending, because the caller no longer waits.

        Returns:
            True if the broker does not have the message and will not get it.
        """
        with self._lock:
            self._abandoned.set()
            return self.copies == 0

    def is_over(self) -> bool:
        """Return whether the message was abandoned or its deadline has passed."""
        return self._abandoned.is_set() or not self.remaining_seconds()

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt, at most until the deadline or until the message is abandoned."""
        self._abandoned.wait(min(seconds, self.remaining_seconds()))

    def begin_write(self) -> bool:
        """Count a copy, which the broker may have from now on.

        Returns:
            False if the message was abandoned: do not write it.
        """
        with self._lock:
            if self._abandoned.is_set():
                return False
            self.copies += 1
            self._written_at = time.monotonic()
            return True

    def undo_write(self) -> None:
        """Take back ``begin_write``: the attempt failed before the broker accepted anything."""
        with self._lock:
            self.copies -= 1

    def claim_resend(self) -> bool:
        """Reserve the message for sending it again.

        Returns:
            False if it is being sent already, was abandoned, or is past its deadline.
        """
        with self._lock:
            if self._is_sending or self.is_over():
                return False
            self._is_sending = True
            return True

    def allow_resend(self) -> None:
        """End the current attempts, so that ``claim_resend`` succeeds again."""
        with self._lock:
            self._is_sending = False

    def is_doubtful(self) -> bool:
        """Return whether the answer is overdue, so that the last copy may have been lost with its worker.

        Each copy is given more time than the one before, since the store may just be slow.
        """
        return self.copies > 0 and time.monotonic() - self._written_at > _DOUBTFUL_SECONDS * self.copies


def failed_before_write(error: BaseException | None, already_handled: BaseException | None = None) -> bool:
    """Return whether an attempt failed before the broker accepted anything: it did not connect, or the broker refused.

    Args:
        error: The attempt's error.
        already_handled: The exception that the thread was handling before the attempt. Python makes it the last
            context of every error, so the search ends there.
    """
    while error is not None and error is not already_handled:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError | socket.gaierror | ResponseError):
            return True
        error = error.__cause__ or error.__context__
    return False
