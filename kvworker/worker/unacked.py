"""kombu's record of unacknowledged messages, kept without waiting for the server twice for each message.

On Redis, a worker records each message that it receives and deletes the record when the message is done: kombu's "ack
emulation". kombu does both in transactions and waits for their answers, in the one thread that everything else waits
for. Here the commands are written to a dedicated connection, in order. The answers are read before the next message is
recorded.

The guarantee is unchanged: the record is written before its message is executed. No answer is unread at that moment,
so the end of this process does not undo the write. An acknowledgement that is lost with its connection leads to a
redelivery, as in kombu.

A worker holds a message with a countdown until its time. It renews the record meanwhile: otherwise another worker would
put the message back after each visibility timeout, as if this one were lost.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from celery.concurrency.thread import TaskPool as ThreadPool
from celery.utils.log import get_logger
from celery.utils.time import maybe_iso8601, maybe_make_aware
from kombu.transport import virtual
from kombu.transport.redis import QoS
from kombu.utils.json import dumps
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from kvworker.fork_safety import with_own_property_locks
from kvworker.messaging.clock import ServerClock
from kvworker.messaging.redis_connections import RedisConnection, connect, is_open, server_time

logger = get_logger(__name__)

#: The share of the visibility timeout after which the records of waiting messages are renewed.
_RENEWED_SHARE: Final = 0.25
_LOST_CONNECTION = (RedisConnectionError, RedisTimeoutError)

Command: TypeAlias = tuple[Any, ...]
#: A function of Celery that acknowledges a message. Its arguments are a logger and the errors of a lost connection,
#: which it logs instead of raising.
Acknowledge: TypeAlias = Callable[..., Any]


class PipelinedConnection:
    """A connection for commands whose answers are read later. Thread-safe.

    Args:
        channel: The kombu channel whose server to connect to.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._connection: RedisConnection | None = None
        self._unread = 0
        self._lock = threading.Lock()

    def write(self, *commands: Command, after_reading: bool = False) -> None:
        """Write commands, on a new connection if this one is lost.

        Args:
            *commands: Commands that may be applied twice.
            after_reading: Read all outstanding answers first.

        Raises:
            redis.exceptions.ConnectionError: The server cannot be reached.
            redis.exceptions.TimeoutError: The server does not answer.
        """
        with self._lock:
            if after_reading:
                self._read()
                if self._connection is not None and not is_open(self._connection):
                    self._drop()
            try:
                self._write(commands)
            except _LOST_CONNECTION:
                self._write(commands)

    def read(self) -> None:
        """Wait for the answers to all commands written so far."""
        with self._lock:
            self._read()

    def close(self) -> None:
        """Read outstanding answers and close the connection. A later write reopens it."""
        with self._lock:
            self._read()
            self._drop()

    def _write(self, commands: tuple[Command, ...]) -> None:
        if self._connection is None:
            pool = self._channel.pool
            self._connection = pool.connection_class(**pool.connection_kwargs)
        try:
            connect(self._connection)
            self._connection.send_packed_command(self._connection.pack_commands(commands), check_health=False)
        except _LOST_CONNECTION:
            self._drop()
            raise
        self._unread += len(commands)

    def _read(self) -> None:
        while self._connection is not None and self._unread:
            self._unread -= 1
            try:
                self._connection.read_response()
            except ResponseError as error:
                logger.error("the broker refuses to record or to acknowledge a message: %s", error)  # noqa: TRY400
                if isinstance(error, ReadOnlyError):  # a replica now; the next connection may find the primary
                    self._drop()
            except _LOST_CONNECTION:
                self._drop()

    def _drop(self) -> None:
        connection, self._connection, self._unread = self._connection, None, 0
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.disconnect()


@with_own_property_locks
class UnackedRecord(QoS):
    """kombu's QoS class of the Redis transport, with a dedicated pipelined connection."""

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._pipelined = PipelinedConnection(channel)
        self._clock = ServerClock(self._broker_time)
        self._index, self._messages = (
            channel.global_keyprefix + key for key in (self.unacked_index_key, self.unacked_key)
        )
        #: The times at which messages with a countdown start, by delivery tag.
        self._waiting: dict[str, float] = {}
        self._renew_at = 0.0

    def append(self, message: Any, delivery_tag: str) -> None:
        """Record a received message, unless it was recorded when it was taken."""
        recorded, self.channel.recorded = self.channel.recorded, b""
        if recorded and recorded == delivery_tag.encode(errors="replace"):
            self._pipelined.read()
        else:
            if recorded:
                self.forget(recorded)
            self._record(message, delivery_tag)
        virtual.QoS.append(self, message, delivery_tag)
        if message.headers.get("eta"):
            self._waiting[delivery_tag] = _seconds_of(message.headers["eta"])

    def _record(self, message: Any, delivery_tag: str) -> None:
        delivery = message.delivery_info
        record = dumps([message._raw, delivery["exchange"], delivery["routing_key"]])
        self._clock.keep()
        self._pipelined.write(
            ("ZADD", self._index, self._clock.now(), delivery_tag),
            ("HSET", self._messages, delivery_tag, record),
            after_reading=True,
        )

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """Put back the messages of lost workers. kombu calls this at intervals.

        Fault in kombu 5.7.0: a server whose memory is full, or that became a replica, refuses this, and a worker that
        starts ends. Not reported upstream.
        """
        if self._waiting and time.monotonic() >= self._renew_at:
            self._renew()
        try:
            super().restore_visible(*arguments, **options)
        except ResponseError as error:
            logger.error("the broker refuses to put back the messages of lost workers: %s", error)  # noqa: TRY400

    def _renew(self) -> None:
        """Renew the records of messages that wait for their time. An acknowledged message has none any more."""
        self._renew_at = time.monotonic() + _RENEWED_SHARE * float(self.channel.visibility_timeout)
        self._clock.keep()
        now = self._clock.now()
        self._waiting = {tag: starts_at for tag, starts_at in self._waiting.items() if starts_at > time.time()}
        self._pipelined.write(*(("ZADD", self._index, "XX", now, tag) for tag in self._waiting), after_reading=True)

    @property
    def visibility_timeout(self) -> float:
        """The age in seconds at which a record counts as left by a lost worker, corrected for clock skew.

        kombu subtracts it from this machine's time. Records hold the broker's time: with a wrong clock, a worker
        would put back messages that others are working on, or others would put back its own.
        """
        self._clock.keep()
        return float(self.channel.visibility_timeout) - self._clock.ahead

    def _broker_time(self) -> float:
        pool = self.channel.pool
        connection = pool.get_connection()
        try:
            return server_time(connection)
        finally:
            pool.release(connection)

    def ack(self, delivery_tag: str) -> None:
        """Delete the record of a message that is done."""
        self.forget(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def forget(self, delivery_tag: str | bytes) -> None:
        """Delete a message's record, its index entry last: a worker that finds an entry without a record deletes it."""
        self._pipelined.write(("HDEL", self._messages, delivery_tag), ("ZREM", self._index, delivery_tag))

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Delete the record of a refused message, or put the message back.

        kombu would delete it on another connection, which may be faster than the one that the record is written on.
        """
        if requeue:
            super().reject(delivery_tag, requeue=True)
            self.channel.expect_message()
        else:
            self.ack(delivery_tag)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Put a message back into its queue, on another connection, after all earlier commands have arrived.

        Fault in kombu 5.7.0: a record that cannot be decoded raises, and no other record is restored any more. Not
        reported upstream.
        """
        self._pipelined.read()
        try:
            super().restore_by_tag(tag, client, leftmost)
        except (*self.channel.connection_errors, ResponseError):
            raise
        except Exception as error:  # noqa: BLE001 - each tagged type of kombu's JSON raises its own errors
            logger.error("a record of an unacknowledged message is dropped: %s", type(error).__name__)  # noqa: TRY400
            self._remove_from_indices(tag).execute()

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Put back all unacknowledged messages when the channel closes."""
        self._pipelined.close()
        super().restore_unacked_once(stderr)


def _seconds_of(eta: object) -> float:
    """Return the time at which Celery starts a message, in seconds since the epoch; 0 if it refuses it."""
    try:
        moment = maybe_iso8601(eta)
        return float(maybe_make_aware(moment).timestamp())
    except (AttributeError, OverflowError, TypeError, ValueError):
        return 0.0


def acknowledging(consumer: Any) -> Callable[[Any, Acknowledge], Acknowledge]:
    """Choose how a consumer's messages are acknowledged.

    Celery acknowledges in its event loop, so a thread of the pool must wake the loop for each message. Our record can
    be written from any thread, so a thread of the pool does it and wakes the loop only if it waits for a free slot.

    Args:
        consumer: A worker's consumer.

    Returns:
        A function that gets a message and Celery's function for it, and returns the function to acknowledge with.
    """

    def acknowledge(message: Any, in_event_loop: Acknowledge) -> Acknowledge:
        """Choose this thread for a message that our record holds, and the event loop for any other."""
        channel = message.channel
        if not isinstance(getattr(channel, "qos", None), UnackedRecord) or _is_reducing_prefetch(consumer):
            return in_event_loop

        def in_this_thread(*arguments: Any) -> None:
            """Acknowledge the message, and wake the event loop if it waits for a free slot."""
            message.ack_log_error(*arguments)
            if _is_waiting_for_slot(channel):
                consumer.hub.call_soon(_wake)

        return in_this_thread

    if isinstance(consumer.pool, ThreadPool) and consumer.hub:
        return acknowledge
    return lambda _, in_event_loop: in_event_loop


def _is_reducing_prefetch(consumer: Any) -> bool:
    """Tell whether Celery counts acknowledgements: after a lost connection it fetches less until running tasks end."""
    return bool(consumer.restart_count) and not consumer._maximum_prefetch_restored


def _is_waiting_for_slot(channel: Any) -> bool:
    """Tell whether the loop has no request at the broker, or leaves the answer to its request unread."""
    return not channel._in_poll or bool(getattr(getattr(channel.connection, "cycle", None), "_paused_brpop", False))


def _wake() -> None:
    """Do nothing: being called is what wakes the loop."""
