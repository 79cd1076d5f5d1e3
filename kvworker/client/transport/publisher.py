"""Sends messages: in the caller's thread if a connection is ready, otherwise in a few background threads.

Connecting can block for longer than a caller may wait (a frozen broker, a name server, TLS), so callers never connect
themselves. On a Redis broker a caller publishes its own message if a connection is ready, and waits for the broker no
longer than for its result. In every other case the threads publish, and the caller waits for the reply with its own
timeout.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

from celery import Celery
from tenacity import Retrying, retry_if_result

from kvworker.client.transport.kombu import KombuTransport
from kvworker.client.transport.message import Message, failed_before_write
from kvworker.client.transport.redis import RedisTransport
from kvworker.errors import BROKER_ANSWERED, LOGIN_REFUSED
from kvworker.messaging.connection_faults import has_answered, refused_login
from kvworker.messaging.observer import CallEvent
from kvworker.model import escaped
from kvworker.retries import BACKOFF
from kvworker.settings.urls import speaks_redis

logger = logging.getLogger(__name__)
_UNTRACED: Final = contextlib.nullcontext()


class Transport(Protocol):
    """A way to the broker, over any number of connections. One thread uses a connection at a time."""

    def acquire_ready(self) -> Any | None:
        """Return a connection on which a caller may publish in its own thread, or None. Never waits."""

    def acquire(self) -> Any:
        """Return a working connection. May block; raises any of the broker library's errors."""

    def publish(self, connection: Any, message: Message) -> None:
        """Send a message. Raises any of the broker library's errors."""

    def release(self, connection: Any) -> None:
        """Keep a connection for the next message."""

    def discard(self, connection: Any) -> None:
        """Close a connection that failed."""

    def find_lost(self, messages: Sequence[Message], /) -> Sequence[Message]:
        """Return those of these unanswered messages that neither the broker nor a worker has."""

    def close(self) -> None:
        """Close idle connections now, and the others when they are released."""


class Publisher:
    """Sends each message, and tries again until it is sent or its time is up.

    Args:
        app: The client's Celery application.
        threads: The number of threads that connect and send in the background.
        queue_name: The queue of the messages.
        timeout_seconds: The time limit of one attempt to connect or read.
        on_refused: Called with a message if the broker refuses this program's login. It is not sent again.
        happened: Called when an attempt to send failed, and when a message is sent again.
    """

    def __init__(
        self,
        app: Celery,
        *,
        threads: int,
        queue_name: str,
        timeout_seconds: float,
        on_refused: Callable[[Message], object] | None = None,
        happened: Callable[[CallEvent], object] = bool,
    ) -> None:
        self._on_refused = on_refused
        self._happened = happened
        self._transport: Transport = (
            RedisTransport(app, queue_name=queue_name, timeout_seconds=timeout_seconds, max_idle=threads)
            if speaks_redis(app.conf.broker_url)
            else KombuTransport(app, queue_name=queue_name, timeout_seconds=timeout_seconds)
        )
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="kvworker-send")
        self._has_given_up = False
        self._closed = False

    def send(self, message: Message, *, may_wait: bool) -> None:
        """Send a message, or start to send it. Raises nothing: problems show in ``message.last_problem``.

        Args:
            message: The message to send.
            may_wait: Allows waiting for the broker's answer here, at most until the message's deadline.
        """
        connection = self._transport.acquire_ready() if may_wait else None
        if connection is not None and self._attempt(message, connection):
            message.allow_resend()
            return
        try:
            self._executor.submit(self._send, message)
        except RuntimeError:
            # After close() nothing is sent, and the caller's wait ends with "no broker took it". While the interpreter
            # waits for the program's last threads it starts no others, but those threads still call: send it here.
            if not self._closed:
                self._attempt(message)
                message.allow_resend()

    def resend(self, message: Message) -> None:
        """Send another copy of a message that the broker may have lost. This is harmless if the broker has it."""
        if message.claim_resend():
            self._happened(CallEvent.RESENT)
            self.send(message, may_wait=False)

    def resend_lost(self, messages: Sequence[Message]) -> None:
        """Find out which of these messages the broker has lost, and send those again. Does not wait."""
        with contextlib.suppress(RuntimeError):
            self._executor.submit(self._resend_lost, messages)

    def close(self) -> None:
        """Let running attempts end, start no others, and close the connections."""
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._transport.close()

    def _send(self, message: Message) -> None:
        if not self._has_given_up and not self._attempt(message):
            self._retry(message)
        message.allow_resend()

    def _retry(self, message: Message) -> None:
        """Repeat a failed attempt with growing pauses, until it succeeds, is pointless, or the deadline passes."""
        retrying = Retrying(
            before=lambda state: message.pause(BACKOFF(state)),
            retry=retry_if_result(operator.not_),
            stop=lambda _: message.is_over(),
            retry_error_callback=lambda _: False,
        )
        retrying(self._attempt_again, message)

    def _attempt_again(self, message: Message) -> bool:
        self._has_given_up = self._has_given_up or self._is_ending()
        return self._has_given_up or message.is_over() or self._attempt(message)

    def _resend_lost(self, messages: Sequence[Message]) -> None:
        with contextlib.suppress(Exception):  # the caller asks once more in a second
            for message in self._transport.find_lost(messages):
                self.resend(message)

    def _is_ending(self) -> bool:
        """Return whether the store was closed or the interpreter is ending, which waits for these threads.

        Messages still in the queue then get one attempt instead of attempts until their deadline.
        """
        try:
            self._executor.submit(bool)
        except RuntimeError:
            return True
        return False

    def _attempt(self, message: Message, connection: Any | None = None) -> bool:
        """Try once, on a ready connection or on one acquired here. True if there is nothing left to do."""
        writing, already_handled = False, sys.exception()
        try:
            if connection is None:
                connection = self._transport.acquire()
            writing = message.begin_write()
            if writing:
                with message.trace or _UNTRACED:
                    self._transport.publish(connection, message)
        except Exception as error:  # noqa: BLE001 - the caller gets any problem with the error for its timeout
            is_refused = refused_login(error)
            problem = _described(error, already_handled)
            message.record_problem(problem)
            self._happened(CallEvent.SEND_FAILED)
            logger.info("sending %s failed: %s", message.description, problem)
            if writing and failed_before_write(error, already_handled):
                message.undo_write()
            if connection is not None:
                self._transport.discard(connection)
            if is_refused and self._on_refused:
                self._on_refused(message)
            return is_refused
        self._transport.release(connection)
        return True


def _described(error: Exception, already_handled: BaseException | None) -> str:
    kind = LOGIN_REFUSED if refused_login(error) else BROKER_ANSWERED if has_answered(error, already_handled) else ""
    return f"{kind}{type(error).__name__}: {escaped(str(error))}"
