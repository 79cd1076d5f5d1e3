"""Publishes to any broker that kombu supports, through kombu's own connections, channels and producers."""

from __future__ import annotations

import contextlib
import selectors
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from celery import Celery

from kvworker.client.transport.message import Message


class _ConnectedProducer(NamedTuple):
    connection: Any
    producer: Any


class KombuTransport:
    """Publishes through Celery and kombu. Each step may block, so a caller's own thread never runs one."""

    def __init__(self, app: Celery, *, queue_name: str, timeout_seconds: float) -> None:
        self._app = app
        self._queue_name = queue_name
        self._timeout_seconds = timeout_seconds
        self._idle: deque[_ConnectedProducer] = deque()
        self._closed = False

    def acquire_ready(self) -> _ConnectedProducer | None:
        """Return None: the broker's confirm may never come, so a caller must not wait for it in its own thread."""
        return None

    def acquire(self) -> _ConnectedProducer:
        """Return a connected producer. May block; raises any of kombu's errors."""
        with contextlib.suppress(IndexError):
            while True:
                connected = self._idle.pop()
                if not _was_closed(connected.connection):
                    return connected
                self.discard(connected)
        # No heartbeat: no thread would send it while the connection is idle.
        connection = self._app.connection_for_write(heartbeat=0)
        try:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            return _ConnectedProducer(connection, self._app.amqp.Producer(connection.channel()))
        except BaseException:
            _close_quietly(connection)
            raise

    def publish(self, connected: _ConnectedProducer, message: Message) -> None:
        """Send a message and await the broker's confirm, if it sends one."""
        self._app.amqp.send_task_message(
            connected.producer,
            message.task_name,
            message.as_task(self._app),
            queue=self._queue_name,
            retry=False,
            confirm_timeout=self._timeout_seconds,
        )

    def release(self, connected: _ConnectedProducer) -> None:
        """Keep a producer for the next message."""
        if self._closed:
            self.discard(connected)
        else:
            self._idle.append(connected)

    def discard(self, connected: _ConnectedProducer) -> None:
        """Close the connection of a producer that failed."""
        _close_quietly(connected.connection)

    def find_lost(self, _messages: Sequence[Message]) -> Sequence[Message]:
        """Return an empty sequence: such a broker itself redelivers a lost worker's messages."""
        return ()

    def close(self) -> None:
        """Close idle connections now, and the others when they are released."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self.discard(self._idle.pop())


def _close_quietly(connection: Any) -> None:
    # Each of kombu's transports raises a different error for a broken connection, which is closed nevertheless.
    with contextlib.suppress(Exception):
        connection.release()


def _was_closed(connection: Any) -> bool:
    """Return whether an AMQP broker has closed an idle connection (redis-py checks this itself).

    The connection only publishes, awaits its confirms and has no heartbeat. So if it has data to read, it was closed.
    """
    amqp_socket = getattr(getattr(connection.connection, "transport", None), "sock", None)
    if amqp_socket is None:
        return False
    with selectors.DefaultSelector() as selector:  # select.select() cannot watch a descriptor above 1023
        selector.register(amqp_socket, selectors.EVENT_READ)
        return bool(selector.select(timeout=0))
