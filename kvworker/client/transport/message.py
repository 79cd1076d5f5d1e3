"""A task message on its way, and what can be said at any moment about whether the broker has it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from redis.exceptions import ResponseError

_DOUBTFUL_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 1.0


@dataclass(eq=False)
class Message:
    """A task message on its way; ``give_up_at`` is by the monotonic clock.

    ``copies`` counts how often the broker may have taken it: 0 is never, more than 1 is after an attempt
    whose end is unknown, or after sending again.
    """

    task_name: str
    task_id: str
    payload: dict[str, Any]
    description: str
    give_up_at: float
    last_problem: str = ""
    copies: int = 0
    #: The broker's name for its last copy, where the route gives one.
    delivery_tag: str = ""
    _written_at: float = 0.0
    _sending: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _abandoned: threading.Event = field(default_factory=threading.Event)

    def as_task(self, app: Celery) -> Any:
        """Celery's ``task_message`` of it, as ``app.send_task`` makes it: headers, properties, body, sent event."""
        return app.amqp.create_task_message(
            self.task_id, self.task_name, kwargs=self.body(), argsrepr="()", kwargsrepr=self.description
        )

    def body(self) -> dict[str, Any]:
        """The payload as it is to be sent now."""
        return self.payload

    def fail(self, problem: str) -> None:
        """Note what went wrong, for the error of a caller whose time is over."""
        self.last_problem = problem

    def tag(self, delivery_tag: str) -> None:
        """Note what the broker is to call the copy that is being sent."""
        self.delivery_tag = delivery_tag

    def remaining_seconds(self) -> float:
        """How long until its deadline; 0 if it has passed."""
        return max(0.0, self.give_up_at - time.monotonic())

    def abandon(self) -> bool:
        """Give up waiting. True if the broker does not have the message and will not get it."""
        with self._lock:
            self._abandoned.set()
            return self.copies == 0

    def begin_writing(self) -> bool:
        """Note that the broker may have it from now on; False if the caller has given up."""
        with self._lock:
            if self._abandoned.is_set():
                return False
            self.copies += 1
            self._written_at = time.monotonic()
            return True

    def nothing_written(self) -> None:
        """Take ``begin_writing`` back: the attempt failed before anything was written."""
        with self._lock:
            self.copies -= 1

    def begin_sending(self) -> bool:
        """Claim the message for sending again; False while it is still being sent, or in vain."""
        with self._lock:
            if self._sending or self._abandoned.is_set() or not self.remaining_seconds():
                return False
            self._sending = True
            return True

    def is_doubtful(self) -> bool:
        """Whether it should have been answered by now: its last copy may have gone with the worker that took it.

        Each copy is given more time than the one before, since it may be the store that is slow.
        """
        return self.copies > 0 and time.monotonic() - self._written_at > _DOUBTFUL_SECONDS * self.copies

    def end_sending(self) -> None:
        """Let it be sent again, should the broker lose it."""
        with self._lock:
            self._sending = False

    def attempts(self) -> Iterator[None]:
        """Yield for each attempt, with a growing pause between them, until time is up."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            yield
            pause = min(pause, self.remaining_seconds())
            if pause <= 0 or self._abandoned.wait(pause):
                return
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)


def was_nothing_written(error: BaseException | None, handled: BaseException | None = None) -> bool:
    """Whether an attempt failed before the broker took anything: while reconnecting, or by its refusal.

    ``handled`` is what the thread was handling before the attempt; Python makes it the last context of every error.
    """
    while error is not None and error is not handled:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError | socket.gaierror | ResponseError):
            return True
        error = error.__cause__ or error.__context__
    return False
