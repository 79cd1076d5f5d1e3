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
from time import time
from typing import Any

from celery.utils.log import get_task_logger
from kombu.transport import virtual
from kombu.transport.redis import Channel, QoS
from kombu.utils.json import dumps
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from kvworker.links import Link, connect

logger = get_task_logger(__name__)

_LOST = (RedisConnectionError, RedisTimeoutError)

Command = tuple[Any, ...]


class Line:
    """A connection for commands whose answers are read later. Thread-safe."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._link: Link | None = None
        self._unread = 0
        self._lock = threading.Lock()

    def write(self, *commands: Command, after_reading: bool = False) -> None:
        """Write commands that can be repeated without harm, if need be on a new connection."""
        with self._lock:
            if after_reading:
                self._read()
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
        self._line = Line(channel)
        self._index, self._messages = (
            channel.global_keyprefix + key for key in (self.unacked_index_key, self.unacked_key)
        )

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that was taken."""
        delivery = message.delivery_info
        noted = dumps([message._raw, delivery["exchange"], delivery["routing_key"]])
        self._line.write(
            ("ZADD", self._index, time(), delivery_tag),
            ("HSET", self._messages, delivery_tag, noted),
            after_reading=True,
        )
        virtual.QoS.append(self, message, delivery_tag)

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
