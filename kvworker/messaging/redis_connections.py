"""Connections to a Redis server for a few packed commands at a time, without redis-py's client around them.

The connections are redis-py's own, so TLS, credentials, sockets and parsing work as usual. The client around them
would add a pool's lock, retries, events and measurements to every command, which cost more than the command itself.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from kvworker.fork_safety import ForkAware, watch_forks

#: A ``redis.connection.AbstractConnection``, which redis-py types only in part.
RedisConnection: TypeAlias = Any

#: The attribute in which a connection remembers its socket and that socket's time limit.
_LIMIT = "_kvworker_limit"
#: A connection that was used this recently counts as open. The system is asked about any other.
_FRESH_SECONDS = 0.01
#: A connection that was idle for longer may have been cut silently, so the server is asked before it is used.
TRUSTED_IDLE_SECONDS = 20.0


class RedisConnectionPool(ForkAware):
    """Idle connections of one process; the last one used comes first. Thread-safe.

    A forked child starts with none, because the sockets belong to its parent.

    Args:
        make_connection: Makes a connection that is not connected yet.
        max_idle: The largest number of idle connections to keep.
    """

    def __init__(self, make_connection: Callable[[], RedisConnection], *, max_idle: int) -> None:
        self._make_connection = make_connection
        self._max_idle = max_idle
        self._idle: deque[tuple[RedisConnection, float]] = deque()
        self._closed = False
        watch_forks(self)

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections. redis-py does not shut down a socket of another process."""
        self._idle = deque()

    def acquire_ready(self) -> RedisConnection | None:
        """Return a connection that appears to work, without waiting for anything, or None if there is none."""
        while True:
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

    def acquire(self) -> RedisConnection:
        """Return a connection that works. May wait for the server.

        Raises:
            redis.exceptions.RedisError: The server cannot be reached, or refuses the connection.
        """
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
        """Return a connection that has no outstanding replies to the pool."""
        self._idle.append((connection, time.monotonic()))
        if self._closed or len(self._idle) > self._max_idle:
            with contextlib.suppress(IndexError):
                self._idle.popleft()[0].disconnect()

    def close(self) -> None:
        """Close the idle connections, and from now on each connection that is given back."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.popleft()[0].disconnect()


def connect(connection: RedisConnection) -> None:
    """Connect if necessary, and set the connection's own timeout as its limit.

    Raises:
        redis.exceptions.RedisError: The server cannot be reached, or refuses the connection.
    """
    # redis-py 5 has no is_connected.
    connected: bool = connection._sock is not None
    if not connected:
        connection.connect()
        limit(connection, connection._sock.gettimeout())


def limit(connection: RedisConnection, seconds: float | None, *, exactly: bool = False) -> None:
    """Bound the time of each later read and write. ``timed_out`` tells whether an error came from this bound.

    On Linux the kernel keeps the time. Python's own timeout polls before each read or write, which doubles the system
    calls and the occasions on which threads hand over the interpreter's lock. TLS and the sockets of gevent and
    eventlet need Python's timeout.

    Args:
        connection: A connection that is connected.
        seconds: The bound; None for no bound.
        exactly: Bound a write that is larger than the socket's buffer as a whole, by Python's timeout. The kernel
            bounds each part of it separately.
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
    """Tell whether a read or a write failed because its time was up."""
    return isinstance(error, RedisTimeoutError) or isinstance(error.__context__, BlockingIOError)


def is_open(connection: RedisConnection) -> bool:
    """Tell whether the connection is open and has nothing to read."""
    try:
        return not connection.can_read(timeout=0)
    except (RedisError, OSError):
        return False


def exchange(connection: RedisConnection, packed: Sequence[bytes], replies: int) -> list[Any]:
    """Send packed commands and read their replies.

    Args:
        connection: A connection that is connected and has no outstanding replies.
        packed: The commands, packed by ``connection.pack_commands``.
        replies: The number of replies to read.

    Returns:
        The replies in order.

    Raises:
        redis.exceptions.ResponseError: The server refused a command. All replies are read, so the connection can
            still be used. It is closed if the server is a replica now: the next one may find the primary.
        redis.exceptions.RedisError: Any other failure. The connection is closed.
    """
    refusal: ResponseError | None = None
    received = []
    connection.send_packed_command(packed, check_health=False)
    for _ in range(replies):
        try:
            received.append(connection.read_response())
        except ResponseError as error:
            refusal = refusal or error
    if refusal is not None:
        if isinstance(refusal, ReadOnlyError):
            connection.disconnect()
        raise refusal
    return received


def server_time(connection: RedisConnection) -> float:
    """Ask the server for its clock.

    Args:
        connection: A connection that is connected and has no outstanding replies.

    Returns:
        Seconds since the epoch.

    Raises:
        redis.exceptions.RedisError: The server cannot be reached, or refuses the command.
    """
    ((seconds, microseconds),) = exchange(connection, connection.pack_commands([("TIME",)]), replies=1)
    return int(seconds) + int(microseconds) / 1e6
