"""The way to a Redis broker: messages as kombu would put them on the queue's list, pushed on ready connections.

kombu spends more on the way than a message takes: for each one a client, a pool's lock, a producer's and a virtual
channel's layers. What arrives is the same, field by field (a test compares them), under the same key.
"""

from __future__ import annotations

import base64
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery, signals
from kombu import serialization
from kombu.utils.json import dumps

from kvworker.client.transport.message import Message
from kvworker.messaging.redis_connections import RedisConnection, RedisConnectionPool, exchange, limit

#: A socket's timeout is above 0; at 0 it would not wait at all.
_SHORTEST_SECONDS = 0.001
#: Of Celery's persistent messages. Redis does nothing with it.
_DELIVERY_MODE = 2
#: Less than what the kernel keeps for a connection at once.
_LARGE_BYTES = 32_768


@dataclass(frozen=True)
class _Target:
    """What kombu knows of a queue: its list's key, and how to make connections to its server."""

    key: str
    noted_key: str
    priority: int
    make_connection: Callable[[], RedisConnection]


class RedisTransport:
    """Pushes messages on connections that are kept open.

    What is ready can be used in a caller's own thread: it waits for the broker no longer than the message may.
    """

    def __init__(self, app: Celery, *, queue_name: str, timeout_seconds: float, max_idle: int) -> None:
        self._app = app
        self._queue_name = queue_name
        self._serializer = str(app.conf.task_serializer)
        self._timeout_seconds = timeout_seconds
        self._connections = RedisConnectionPool(self._make_connection, max_idle=max_idle)
        self._target: _Target | None = None

    def acquire_ready(self) -> RedisConnection | None:
        """A connection that can be used at once, or None."""
        return self._connections.acquire_ready()

    def acquire(self) -> RedisConnection:
        """A connection that works; making one may block for long."""
        return self._connections.acquire()

    def publish(self, link: RedisConnection, message: Message) -> None:
        """Push a message and await the broker's answer, within the socket's timeout and the message's deadline."""
        assert self._target is not None  # noqa: S101 - there is no connection without it
        task = message.as_task(self._app)
        self._announce(signals.before_task_publish, message, task, properties=task.properties)
        delivery_tag = str(uuid.uuid4())
        message.tag(delivery_tag)
        item = self._as_item(task, delivery_tag)
        # A signal makes the system's wait begin anew, and signals come to the main thread.
        exactly = threading.current_thread() is threading.main_thread()
        limit(link, self._patience(message), exactly=exactly or len(item) > _LARGE_BYTES)
        link.send_packed_command(link.pack_command("LPUSH", self._target.key, item), check_health=False)
        limit(link, self._patience(message), exactly=exactly)
        link.read_response()
        self._announce(signals.after_task_publish, message, task)

    def lost(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Which of these are neither in the queue nor noted: lost with the worker that they were handed to."""
        link = self.acquire()
        try:
            assert self._target is not None  # noqa: S101 - there is no connection without it
            limit(link, self._timeout_seconds)
            noted = [("HEXISTS", self._target.noted_key, message.delivery_tag) for message in messages]
            packed = link.pack_commands([("LLEN", self._target.key), *noted])
            length, *held = exchange(link, packed, replies=1 + len(noted))
        except BaseException:
            self.drop(link)
            raise
        self.give_back(link)
        return [] if length else [message for message, is_held in zip(messages, held, strict=True) if not is_held]

    def give_back(self, link: RedisConnection) -> None:
        """Keep a connection for the next message."""
        self._connections.give_back(link)

    def drop(self, link: RedisConnection) -> None:
        """Close a connection that failed."""
        link.disconnect()

    def close(self) -> None:
        """Close what is idle, and from now on what is given back."""
        self._connections.close()

    def _patience(self, message: Message) -> float:
        return max(_SHORTEST_SECONDS, min(self._timeout_seconds, message.remaining_seconds()))

    def _announce(self, signal: Any, message: Message, task: Any, **details: Any) -> None:
        """Tell those who listen to Celery's signals, such as tracers, what Celery would tell them."""
        if signal.receivers:
            if signal is signals.before_task_publish:
                details["declare"] = [self._app.amqp.queues[self._queue_name]]
                details["retry_policy"] = dict(self._app.conf.task_publish_retry_policy)
            routing = {"exchange": "", "routing_key": self._queue_name}
            signal.send(sender=message.task_name, body=task.body, headers=task.headers, **routing, **details)

    def _as_item(self, task: Any, delivery_tag: str) -> str:
        """The message as kombu's virtual transport writes it, which see: ``prepare_message``, ``basic_publish``."""
        assert self._target is not None  # noqa: S101 - there is no connection without it
        properties = {
            **task.properties,
            "delivery_mode": _DELIVERY_MODE,
            "delivery_info": {"exchange": "", "routing_key": self._queue_name},
            "priority": self._target.priority,
            "body_encoding": "base64",
            "delivery_tag": delivery_tag,
        }
        content_type, body = self._encoded(task.body)
        item = {
            "body": base64.b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": content_type,
            "headers": task.headers,
            "properties": properties,
        }
        return str(dumps(item))

    def _encoded(self, body: Any) -> tuple[str, str]:
        """The content type and the text of a body. JSON needs no way through kombu's registry."""
        if self._serializer == "json":
            return "application/json", dumps(body)
        content_type, _, text = serialization.dumps(body, serializer=self._serializer)
        return content_type, text

    def _make_connection(self) -> RedisConnection:
        if self._target is None:
            self._target = self._find_target()
        return self._target.make_connection()

    def _find_target(self) -> _Target:
        """Ask kombu, which also declares the queue; raises whatever it does without the server."""
        with self._app.connection_for_write(heartbeat=0) as connection:
            connection.ensure_connection(max_retries=0, reraise_as_library_errors=False)
            channel = connection.channel()
            self._app.amqp.queues[self._queue_name](channel).declare()
            pool, priority = channel.pool, channel.default_priority
            return _Target(
                key=f"{channel.global_keyprefix}{channel._q_for_pri(self._queue_name, priority)}",
                noted_key=f"{channel.global_keyprefix}{channel.unacked_key}",
                priority=priority,
                make_connection=lambda: pool.connection_class(**pool.connection_kwargs),
            )
