"""The way to any broker that kombu knows: its own connections, channels and producers."""

from __future__ import annotations

import contextlib
import selectors
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from celery import Celery

from kvworker.client.transport.message import Message


class _Way(NamedTuple):
    connection: Any
    producer: Any


class KombuTransport:
    """Publishes through Celery and kombu. Each step may block, so a caller's own thread never takes it."""

    def __init__(self, app: Celery, *, queue_name: str, timeout_seconds: float) -> None:
        self._app = app
        self._queue_name = queue_name
        self._timeout_seconds = timeout_seconds
        self._idle: deque[_Way] = deque()
        self._closed = False

    def acquire_ready(self) -> _Way | None:
        """Nothing is ever ready: a confirm may not come."""
        return None

    def acquire(self) -> _Way:
        """A producer that is connected; raises whatever the transport does."""
        with contextlib.suppress(IndexError):
            while True:
                way = self._idle.pop()
                if not _was_closed(way.connection):
                    return way
                self.drop(way)
        # Heartbeats need a thread that answers them; an idle connection here has none.
        connection = self._app.connection_for_write(heartbeat=0)
        try:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            return _Way(connection, self._app.amqp.Producer(connection.channel()))
        except BaseException:
            _release(connection)
            raise

    def publish(self, way: _Way, message: Message) -> None:
        """Send a message and await the broker's confirm, if it gives one."""
        self._app.amqp.send_task_message(
            way.producer,
            message.task_name,
            message.as_task(self._app),
            queue=self._queue_name,
            retry=False,
            confirm_timeout=self._timeout_seconds,
        )

    def give_back(self, way: _Way) -> None:
        """Keep a producer for the next message."""
        if self._closed:
            self.drop(way)
        else:
            self._idle.append(way)

    def drop(self, way: _Way) -> None:
        """Close the connection of a producer that failed."""
        _release(way.connection)

    def lost(self, _messages: Sequence[Message]) -> Sequence[Message]:
        """None: such a broker gives what a lost worker had to another one."""
        return ()

    def close(self) -> None:
        """Close what is idle, and from now on what is given back."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self.drop(self._idle.pop())


def _release(connection: Any) -> None:
    # Closing a broken connection fails in as many ways as there are transports; it is gone either way.
    with contextlib.suppress(Exception):
        connection.release()


def _was_closed(connection: Any) -> bool:
    """Whether an AMQP broker has closed the connection meanwhile (redis-py looks for itself).

    A connection that only publishes, with confirms awaited and no heartbeat, has nothing to read but its end.
    """
    amqp_socket = getattr(getattr(connection.connection, "transport", None), "sock", None)
    if amqp_socket is None:
        return False
    with selectors.DefaultSelector() as selector:  # select() alone cannot watch a descriptor above 1023
        selector.register(amqp_socket, selectors.EVENT_READ)
        return bool(selector.select(timeout=0))
