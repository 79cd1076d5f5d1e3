"""How messages leave a client: a few threads, each with its own connection to the broker.

Publishing can block for longer than a caller may wait (a frozen broker, a name server, TLS), so callers
never publish themselves; they wait for the reply with their own timeout. Each message tells at any
moment whether the broker can possibly have it, which decides what a timeout is called.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from celery import Celery
from redis.exceptions import ResponseError

logger = logging.getLogger(__name__)

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
    _sending: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _abandoned: threading.Event = field(default_factory=threading.Event)

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
            return True

    def nothing_written(self) -> None:
        """Take ``begin_writing`` back: the attempt failed before anything was written."""
        with self._lock:
            self.copies -= 1

    def begin_sending(self) -> bool:
        """Claim the message for sending again; False while it is still being sent, or in vain."""
        with self._lock:
            if self._sending or self._abandoned.is_set() or time.monotonic() >= self.give_up_at:
                return False
            self._sending = True
            return True

    def end_sending(self) -> None:
        """Let it be sent again, should the broker lose it."""
        with self._lock:
            self._sending = False

    def attempts(self) -> Iterator[None]:
        """Yield for each attempt, with a growing pause between them, until time is up."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            yield
            pause = min(pause, self.give_up_at - time.monotonic())
            if pause <= 0 or self._abandoned.wait(pause):
                return
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)


class Sender:
    """Publishes messages in the background, each until it is sent or its time is up."""

    def __init__(self, app: Celery, *, threads: int, queue_name: str, timeout_seconds: float) -> None:
        self._app = app
        self._queue_name = queue_name
        self._timeout_seconds = timeout_seconds
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="kvworker-send")
        self._local = threading.local()
        self._connections: set[Any] = set()
        self._connections_lock = threading.Lock()
        self._given_up = False

    def send(self, message: Message) -> None:
        """Start sending. Problems show in ``message.last_problem``."""
        # After close() nothing is sent: the caller's wait ends with "no broker took it".
        with contextlib.suppress(RuntimeError):
            self._executor.submit(self._send, message)

    def send_again(self, message: Message) -> None:
        """Send a message once more that the broker may have lost; harmless if it has not."""
        if message.begin_sending():
            self.send(message)

    def close(self) -> None:
        """Let running attempts end, start no new ones, and close the connections."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        with self._connections_lock:
            connections, self._connections = self._connections, set()
        for connection in connections:
            _release(connection)

    def _send(self, message: Message) -> None:
        for _ in message.attempts():
            if self._given_up or self._attempt(message):
                break
            self._given_up = self._is_ending()
        message.end_sending()

    def _is_ending(self) -> bool:
        """Whether the store was closed or the interpreter is ending, which waits for these threads.

        What is still queued is then sent if that works at once, and not tried again until its deadline.
        """
        try:
            self._executor.submit(bool)
        except RuntimeError:
            return True
        return False

    def _attempt(self, message: Message) -> bool:
        """Try once; True when there is nothing left to do."""
        writing = False
        try:
            self._connect()
            writing = message.begin_writing()
            if writing:
                self._publish(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it when its time is up
            message.last_problem = f"{type(error).__name__}: {error}"
            logger.info("sending %s failed: %s", message.description, message.last_problem)
            if writing and _nothing_written(error):
                message.nothing_written()
            self._drop_producer()
            return False
        return True

    def _connect(self) -> None:
        producer = getattr(self._local, "producer", None)
        if producer is not None and _was_closed(self._local.connection):
            self._drop_producer()
            producer = None
        if producer is None:
            self._local.producer = self._make_producer()

    def _publish(self, message: Message) -> None:
        amqp = self._app.amqp
        task_message = amqp.create_task_message(
            message.task_id,
            message.task_name,
            kwargs=message.payload,
            argsrepr="()",
            kwargsrepr=message.description,
        )
        amqp.send_task_message(
            self._local.producer,
            message.task_name,
            task_message,
            queue=self._queue_name,
            retry=False,
            confirm_timeout=self._timeout_seconds,
        )

    def _make_producer(self) -> Any:
        # Heartbeats need a thread that answers them; an idle connection here has none.
        connection = self._app.connection_for_write(heartbeat=0)
        self._local.connection = connection
        with self._connections_lock:
            self._connections.add(connection)
        connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
        return self._app.amqp.Producer(connection.channel())

    def _drop_producer(self) -> None:
        self._local.producer = None
        connection, self._local.connection = getattr(self._local, "connection", None), None
        if connection is not None:
            with self._connections_lock:
                self._connections.discard(connection)
            _release(connection)


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


def _nothing_written(error: BaseException | None) -> bool:
    """Whether the attempt failed before the broker took anything: while reconnecting, or by its refusal."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError | socket.gaierror | ResponseError):
            return True
        error = error.__cause__ or error.__context__
    return False
