"""Publishes to a Redis broker: pushes messages onto the queue's list as kombu would, on connections kept ready.

kombu spends more time on a message than Redis does: each one passes through a client, a pool's lock, a producer and a
virtual channel. This module skips those layers. The message that arrives is the same, field by field, under the same
key; a test compares them.
"""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from celery import Celery, signals
from kombu import serialization
from kombu.utils.json import dumps

from kvworker.client.transport.message import Message
from kvworker.messaging.redis_connections import RedisConnection, RedisConnectionPool, exchange, limit

#: A socket with a timeout of 0 would not wait at all.
_MIN_TIMEOUT_SECONDS: Final = 0.001
#: Celery's value for persistent messages. Redis ignores it.
_DELIVERY_MODE: Final = 2
#: Below the size of a socket's send buffer: a smaller message is written in one part.
_LARGE_BYTES: Final = 32_768


@dataclass(frozen=True)
class _QueueTarget:
    """A queue as kombu stores it: the keys of its list and of the unacknowledged messages, and its server."""

    key: str
    unacked_key: str
    priority: int
    make_connection: Callable[[], RedisConnection]


class RedisTransport:
    """Pushes messages onto a Redis list, over connections that are kept open.

    A caller may use a ready connection in its own thread, since ``publish`` never waits beyond the message's deadline.
    """

    def __init__(self, app: Celery, *, queue_name: str, timeout_seconds: float, max_idle: int) -> None:
        self._app = app
        self._queue_name = queue_name
        self._serializer = str(app.conf.task_serializer)
        self._timeout_seconds = timeout_seconds
        self._connections = RedisConnectionPool(self._make_connection, max_idle=max_idle)
        self._target: _QueueTarget | None = None

    def acquire_ready(self) -> RedisConnection | None:
        """Return a connection that can be used at once, or None."""
        return self._connections.acquire_ready()

    def acquire(self) -> RedisConnection:
        """Return a working connection. Making one may block for long."""
        return self._connections.acquire()

    def publish(self, connection: RedisConnection, message: Message) -> None:
        """Push a message and await the broker's answer, within the socket's timeout and the message's deadline."""
        assert self._target is not None  # noqa: S101 - making a connection sets it
        task = message.as_task(self._app)
        self._send_signal(signals.before_task_publish, message, task, properties=task.properties)
        delivery_tag = str(uuid.uuid4())
        message.record_delivery_tag(delivery_tag)
        item = self._to_list_item(task, delivery_tag)
        # A signal restarts the kernel's wait, and Python delivers signals to the main thread.
        exactly = threading.current_thread() is threading.main_thread()
        limit(connection, self._timeout_for(message), exactly=exactly or len(item) > _LARGE_BYTES)
        command = connection.pack_command("LPUSH", self._target.key, item)
        connection.send_packed_command(command, check_health=False)
        limit(connection, self._timeout_for(message), exactly=exactly)
        connection.read_response()
        self._send_signal(signals.after_task_publish, message, task)

    def find_lost(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return the messages that are neither queued nor recorded as unacknowledged: lost on the way to a worker.

        Looking for a message in the queue would read all of it, so this returns none until the queue is empty.
        """
        connection = self.acquire()
        try:
            assert self._target is not None  # noqa: S101 - making a connection sets it
            limit(connection, self._timeout_seconds)
            is_unacked = [("HEXISTS", self._target.unacked_key, message.delivery_tag) for message in messages]
            packed = connection.pack_commands([("LLEN", self._target.key), *is_unacked])
            queue_length, *unacked = exchange(connection, packed, replies=1 + len(is_unacked))
        except BaseException:
            self.discard(connection)
            raise
        self.release(connection)
        if queue_length:
            return []
        return [message for message, is_held in zip(messages, unacked, strict=True) if not is_held]

    def release(self, connection: RedisConnection) -> None:
        """Keep a connection for the next message."""
        self._connections.give_back(connection)

    def discard(self, connection: RedisConnection) -> None:
        """Close a connection that failed."""
        connection.disconnect()

    def close(self) -> None:
        """Close idle connections now, and the others when they are released."""
        self._connections.close()

    def _timeout_for(self, message: Message) -> float:
        return max(_MIN_TIMEOUT_SECONDS, min(self._timeout_seconds, message.remaining_seconds()))

    def _send_signal(self, signal: Any, message: Message, task: Any, **details: Any) -> None:
        """Give the receivers of Celery's signals, such as tracers, the arguments that Celery would give them."""
        if signal.receivers:
            if signal is signals.before_task_publish:
                details["declare"] = [self._app.amqp.queues[self._queue_name]]
                details["retry_policy"] = dict(self._app.conf.task_publish_retry_policy)
            routing = {"exchange": "", "routing_key": self._queue_name}
            signal.send(sender=message.task_name, body=task.body, headers=task.headers, **routing, **details)

    def _to_list_item(self, task: Any, delivery_tag: str) -> str:
        """Encode the message as kombu's virtual channel does in ``prepare_message`` and ``basic_publish``."""
        assert self._target is not None  # noqa: S101 - making a connection sets it
        properties = {
            **task.properties,
            "delivery_mode": _DELIVERY_MODE,
            "delivery_info": {"exchange": "", "routing_key": self._queue_name},
            "priority": self._target.priority,
            "body_encoding": "base64",
            "delivery_tag": delivery_tag,
        }
        content_type, body = self._encode_body(task.body)
        item = {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": task.headers,
            "properties": properties,
        }
        return str(dumps(item))

    def _encode_body(self, body: Any) -> tuple[str, str]:
        """Return the content type and the text of a body. JSON skips kombu's registry, which costs more."""
        if self._serializer == "json":
            return "application/json", dumps(body)
        content_type, _, text = serialization.dumps(body, serializer=self._serializer)
        return content_type, text

    def _make_connection(self) -> RedisConnection:
        if self._target is None:
            self._target = self._find_target()
        return self._target.make_connection()

    def _find_target(self) -> _QueueTarget:
        """Declare the queue through kombu and read its keys. Raises kombu's errors if the server does not answer."""
        with self._app.connection_for_write(heartbeat=0) as connection:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            channel = connection.channel()
            self._app.amqp.queues[self._queue_name](channel).declare()
            pool, priority = channel.pool, channel.default_priority
            return _QueueTarget(
                key=f"{channel.global_keyprefix}{channel._q_for_pri(self._queue_name, priority)}",
                unacked_key=f"{channel.global_keyprefix}{channel.unacked_key}",
                priority=priority,
                make_connection=lambda: pool.connection_class(**pool.connection_kwargs),
            )
