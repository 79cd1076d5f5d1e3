"""Connections to a Redis server for a few packed commands at a time, without redis-py's client around them.

The connections are redis-py's own, so TLS, credentials, sockets and parsing are what they are everywhere else.
What is left out is what its client adds to every command (a pool's lock, retries, events, measurements), which
costs more than the command itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

#: A ``redis.connection.AbstractConnection``, of which redis-py types only half.
RedisConnection: TypeAlias = Any

#: Where a connection remembers its socket and the limit that is set on it.
_LIMIT = "_kvworker_limit"
#: What was used so recently is taken to be open still; beyond, the system is asked.
_FRESH_SECONDS = 0.01
#: What was idle for longer may have been cut on its way without a word, and is asked before it is used.
TRUSTED_IDLE_SECONDS = 20.0


class RedisConnectionPool:
    """Connections of one process that are ready for use; the last one used comes first. Thread-safe.

    At most ``max_idle`` are kept. A child process starts with none: those sockets belong to its parent.
    """

    def __init__(self, make_connection: Callable[[], RedisConnection], *, max_idle: int) -> None:
        self._make_connection = make_connection
        self._max_idle = max_idle
        self._idle: deque[tuple[RedisConnection, float]] = deque()
        self._pid = os.getpid()
        self._closed = False

    def acquire_ready(self) -> RedisConnection | None:
        """A connection that works as far as can be told without waiting for anything, or None."""
        while self._pid == os.getpid():
            try:
                connection, used_at = self._idle.pop()
            except IndexError:
                return None
            idle_seconds = time.monotonic() - used_at
            if idle_seconds > TRUSTED_IDLE_SECONDS:
                self._idle.append((connection, used_at))
                return None
            if idle_seconds < _FRESH_SECONDS or is_open(connection):
                return connection
            connection.disconnect()
        return None

    def acquire(self) -> RedisConnection:
        """A connection that works; may wait for the server.

        Raises:
            redis.exceptions.RedisError: the server cannot be reached, or refuses.
        """
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()
        connection = self.acquire_ready()
        if connection is None:
            try:
                connection = self._idle.pop()[0]
                if not is_open(connection):
                    connection.disconnect()
            except IndexError:
                connection = self._make_connection()
            connect(connection)
            connection.check_health()
        return connection

    def give_back(self, connection: RedisConnection) -> None:
        """Keep a connection, on which nothing is outstanding, for whoever is next."""
        self._idle.append((connection, time.monotonic()))
        if self._closed or len(self._idle) > self._max_idle:
            with contextlib.suppress(IndexError):
                self._idle.popleft()[0].disconnect()

    def close(self) -> None:
        """Close what is idle, and from now on what is given back."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while self._pid == os.getpid():
                self._idle.popleft()[0].disconnect()


def connect(connection: RedisConnection) -> None:
    """Connect, if it is not connected, with the connection's own timeout as its limit."""
    if not connection.is_connected:
        connection.connect()
        limit(connection, connection._sock.gettimeout())


def limit(connection: RedisConnection, seconds: float | None, *, exactly: bool = False) -> None:
    """Bound what a read or a write takes; ``timed_out`` tells whether it was this that ended one.

    On Linux the kernel watches the time. Python would ask, before each of them, whether there is anything to wait
    for: two system calls for one, and twice as many moments at which threads pass the interpreter's lock around.
    TLS needs Python's way, and so do the sockets of gevent and eventlet, and whatever is larger than a socket takes
    at once: the kernel bounds each of its parts, ``exactly`` all together.
    """
    plain = connection._sock
    if exactly or type(plain).__module__ != "socket" or sys.platform != "linux":
        plain.settimeout(seconds)
        connection.__dict__.pop(_LIMIT, None)
    elif connection.__dict__.get(_LIMIT) != (plain, seconds):
        timeval = struct.pack("ll", *divmod(int((seconds or 0) * 1e6), 1_000_000))
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
        plain.settimeout(None)
        connection.__dict__[_LIMIT] = (plain, seconds)


def timed_out(error: BaseException) -> bool:
    """Whether a read or a write failed because its time was up."""
    return isinstance(error, RedisTimeoutError) or isinstance(error.__context__, BlockingIOError)


def is_open(connection: RedisConnection) -> bool:
    """Whether the server has neither closed the connection nor said anything on it."""
    try:
        return not connection.can_read(timeout=0)
    except (RedisError, OSError):
        return False


def exchange(connection: RedisConnection, packed: Sequence[bytes], replies: int) -> list[Any]:
    """Send packed commands and give as many replies.

    Raises:
        redis.exceptions.ResponseError: one was refused; all replies are read and the connection can be used on.
        redis.exceptions.RedisError: anything else, after which the connection is closed.
    """
    refusal: ResponseError | None = None
    given = []
    connection.send_packed_command(packed, check_health=False)
    for _ in range(replies):
        try:
            given.append(connection.read_response())
        except ResponseError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    return given
