"""How messages leave a client: at once where a connection is ready, or else from a few threads.

Connecting can block for longer than a caller may wait (a frozen broker, a name server, TLS), so callers
never connect themselves. On a Redis broker a caller pushes its own message where a connection is ready, and
waits for the answer no longer than for its result; in all other cases the threads publish, and the caller
waits for the reply with its own timeout.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from celery import Celery

from kvworker.client.transport.kombu import KombuTransport
from kvworker.client.transport.message import Message, was_nothing_written
from kvworker.client.transport.redis import RedisTransport
from kvworker.settings.urls import speaks_redis

logger = logging.getLogger(__name__)


class Transport(Protocol):
    """A way to the broker, over any number of connections that are used by one thread at a time."""

    def acquire_ready(self) -> Any | None:
        """A connection on which a caller may publish in its own thread, or None; never waits."""

    def acquire(self) -> Any:
        """A connection that works; raises whatever the transport does."""

    def publish(self, connection: Any, message: Message) -> None:
        """Send a message; raises whatever the transport does."""

    def give_back(self, connection: Any) -> None:
        """Keep a connection for the next message."""

    def drop(self, connection: Any) -> None:
        """Close a connection that failed."""

    def lost(self, messages: Sequence[Message], /) -> Sequence[Message]:
        """Which of these unanswered messages the broker does not have, and no worker has noted."""

    def close(self) -> None:
        """Close what is kept, and from now on what is given back."""


class Publisher:
    """Publishes messages, each until it is sent or its time is up."""

    def __init__(self, app: Celery, *, threads: int, queue_name: str, timeout_seconds: float) -> None:
        self._transport: Transport = (
            RedisTransport(app, queue_name=queue_name, timeout_seconds=timeout_seconds, max_idle=threads)
            if speaks_redis(app.conf.broker_url)
            else KombuTransport(app, queue_name=queue_name, timeout_seconds=timeout_seconds)
        )
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="kvworker-send")
        self._given_up = False
        self._closed = False

    def send(self, message: Message, *, may_wait: bool) -> None:
        """Send, or start sending. Problems show in ``message.last_problem``.

        ``may_wait`` allows to wait for the broker's answer here, at most until the message's deadline.
        """
        connection = self._transport.acquire_ready() if may_wait else None
        if connection is not None and self._attempt(message, connection):
            message.end_sending()
            return
        try:
            self._executor.submit(self._send, message)
        except RuntimeError:
            # After close() nothing is sent: the caller's wait ends with "no broker took it". Where the interpreter
            # waits for the last threads of a program, which still call, no other thread starts: it is sent here.
            if not self._closed:
                self._attempt(message)
                message.end_sending()

    def send_again(self, message: Message) -> None:
        """Send a message once more that the broker may have lost; harmless if it has not."""
        if message.begin_sending():
            self.send(message, may_wait=False)

    def send_lost(self, messages: Sequence[Message]) -> None:
        """Send those of these messages again that the broker has lost."""
        with contextlib.suppress(RuntimeError):
            self._executor.submit(self._send_lost, messages)

    def close(self) -> None:
        """Let running attempts end, start no new ones, and close the connections."""
        self._closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._transport.close()

    def _send(self, message: Message) -> None:
        for _ in message.attempts():
            if self._given_up or self._attempt(message):
                break
            self._given_up = self._is_ending()
        message.end_sending()

    def _send_lost(self, messages: Sequence[Message]) -> None:
        with contextlib.suppress(Exception):  # looked at again in a second
            for message in self._transport.lost(messages):
                self.send_again(message)

    def _is_ending(self) -> bool:
        """Whether the store was closed or the interpreter is ending, which waits for these threads.

        What is still queued is then sent if that works at once, and not tried again until its deadline.
        """
        try:
            self._executor.submit(bool)
        except RuntimeError:
            return True
        return False

    def _attempt(self, message: Message, connection: Any | None = None) -> bool:
        """Try once, on a ready connection or on one that is made; True when there is nothing left to do."""
        writing, handled = False, sys.exception()
        try:
            if connection is None:
                connection = self._transport.acquire()
            writing = message.begin_writing()
            if writing:
                self._transport.publish(connection, message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it when its time is up
            problem = f"{type(error).__name__}: {error}"
            message.fail(problem)
            logger.info("sending %s failed: %s", message.description, problem)
            if writing and was_nothing_written(error, handled):
                message.nothing_written()
            if connection is not None:
                self._transport.drop(connection)
            return False
        self._transport.give_back(connection)
        return True
