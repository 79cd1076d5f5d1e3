"""kombu's record of what a worker has taken and not acknowledged, kept without waiting for the server twice a message.

On Redis a worker notes each message that it takes, and strikes it out when it is done (kombu's "ack emulation");
kombu does both in transactions and awaits their answers, in the one thread that everything else waits for. Here
the commands are written to one connection of their own, in order, and the answers are read before the next message is
noted. What is promised stays: a note has been written before its message is worked on, and nothing is unread then,
so that even the end of this process does not take it back. An acknowledgement that gets lost with its connection
is a message delivered again, as ever.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeAlias

from celery.concurrency.thread import TaskPool as ThreadPool
from celery.utils.log import get_task_logger
from kombu.transport import virtual
from kombu.transport.redis import Channel, QoS
from kombu.utils.json import dumps
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from kvworker.messaging.clock import ServerClock
from kvworker.messaging.redis_connections import RedisConnection, connect, is_open

logger = get_task_logger(__name__)

_LOST = (RedisConnectionError, RedisTimeoutError)

Command: TypeAlias = tuple[Any, ...]
#: Celery's way to acknowledge: called with a logger and the errors of a lost connection, it raises none of them.
Acknowledge: TypeAlias = Callable[..., Any]


class PipelinedConnection:
    """A connection for commands whose answers are read later. Thread-safe."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._link: RedisConnection | None = None
        self._unread = 0
        self._lock = threading.Lock()

    def write(self, *commands: Command, after_reading: bool = False) -> None:
        """Write commands that can be repeated without harm, if need be on a new connection."""
        with self._lock:
            if after_reading:
                self._read()
                if self._link is not None and not is_open(self._link):
                    self._drop()
            try:
                self._write(commands)
            except _LOST:
                self._write(commands)

    def read(self) -> None:
        """Await the answers to everything written."""
        with self._lock:
            self._read()

    def close(self) -> None:
        """Read what is outstanding and close; writing again opens it again."""
        with self._lock:
            self._read()
            self._drop()

    def _write(self, commands: tuple[Command, ...]) -> None:
        if self._link is None:
            pool = self._channel.pool
            self._link = pool.connection_class(**pool.connection_kwargs)
        try:
            connect(self._link)
            self._link.send_packed_command(self._link.pack_commands(commands), check_health=False)
        except _LOST:
            self._drop()
            raise
        self._unread += len(commands)

    def _read(self) -> None:
        while self._link is not None and self._unread:
            self._unread -= 1
            try:
                self._link.read_response()
            except ResponseError as error:
                logger.error("the broker refuses to note or to strike out a message: %s", error)  # noqa: TRY400 - nothing more to see
            except _LOST:
                self._drop()

    def _drop(self) -> None:
        link, self._link, self._unread = self._link, None, 0
        if link is not None:
            with contextlib.suppress(Exception):
                link.disconnect()


class UnackedRecord(QoS):
    """kombu's QoS of the Redis transport, on a line of its own."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._line = PipelinedConnection(channel)
        self._clock = ServerClock(self._broker_time)
        self._index, self._messages = (
            channel.global_keyprefix + key for key in (self.unacked_index_key, self.unacked_key)
        )

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that was taken."""
        delivery = message.delivery_info
        noted = dumps([message._raw, delivery["exchange"], delivery["routing_key"]])
        self._clock.keep()
        self._line.write(
            ("ZADD", self._index, self._clock.now(), delivery_tag),
            ("HSET", self._messages, delivery_tag, noted),
            after_reading=True,
        )
        virtual.QoS.append(self, message, delivery_tag)

    @property
    def visibility_timeout(self) -> float:
        """How old a note of a lost worker is, by this machine's clock, which kombu takes for all workers'.

        All note the broker's time: a wrong clock would put back what others work on, or have its own put back.
        """
        self._clock.keep()
        return float(self.channel.visibility_timeout) - self._clock.ahead

    def _broker_time(self) -> float:
        with self.channel.conn_or_acquire() as client:
            seconds, microseconds = client.time()
        return int(seconds) + int(microseconds) / 1e6

    def ack(self, delivery_tag: str) -> None:
        """Strike out a message that is done."""
        self._line.write(("ZREM", self._index, delivery_tag), ("HDEL", self._messages, delivery_tag))
        virtual.QoS.ack(self, delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Put a message back into its queue, on another connection: what was written before must have arrived."""
        self._line.read()
        super().restore_by_tag(tag, client, leftmost)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Put back what is not acknowledged; the end of a channel."""
        self._line.close()
        super().restore_unacked_once(stderr)


def use_unacked_record() -> None:
    """Have the Redis transport of this process keep its record so; calling it again changes nothing."""
    Channel.QoS = UnackedRecord


def acknowledging(consumer: Any) -> Callable[[Any, Acknowledge], Acknowledge]:
    """How a consumer's messages are acknowledged, given a message and Celery's way.

    Celery has its event loop do it, which a thread of the pool has to wake for each message. The record here can be
    written from any thread, so the loop is woken only where it waits for a free slot.
    """

    def acknowledge(message: Any, in_the_loop: Acknowledge) -> Acknowledge:
        channel = message.channel
        if not isinstance(getattr(channel, "qos", None), UnackedRecord) or _is_reducing_prefetch(consumer):
            return in_the_loop

        def here(*arguments: Any) -> None:
            message.ack_log_error(*arguments)
            if _is_waiting_for_a_slot(channel):
                consumer.hub.call_soon(_nothing)

        return here

    return acknowledge if isinstance(consumer.pool, ThreadPool) and consumer.hub else lambda _, in_the_loop: in_the_loop


def _is_reducing_prefetch(consumer: Any) -> bool:
    """Whether acknowledgements count: after a lost connection, Celery takes less until what runs has ended."""
    return bool(consumer.restart_count) and not consumer._maximum_prefetch_restored


def _is_waiting_for_a_slot(channel: Any) -> bool:
    """Whether the loop asks the broker for nothing, or leaves unread what it has asked for."""
    return not channel._in_poll or bool(getattr(getattr(channel.connection, "cycle", None), "_paused_brpop", False))


def _nothing() -> None:
    """Wake the loop."""
