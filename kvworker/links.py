"""Connections to a Redis server for a few packed commands at a time, without redis-py's client around them.

The connections are redis-py's own, so TLS, credentials, sockets and parsing are what they are everywhere else.
What is left out is what its client adds to every command (a pool's lock, retries, events, measurements), which
costs more than the command itself.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from redis.exceptions import RedisError, ResponseError

#: A ``redis.connection.AbstractConnection``, of which redis-py types only half.
Link: TypeAlias = Any

#: What was idle for longer may have been cut on its way without a word, and is asked before it is used.
TRUSTED_IDLE_SECONDS = 20.0


class Links:
    """Connections of one process that are ready for use; the last one used comes first. Thread-safe.

    At most ``max_idle`` are kept. A child process starts with none: those sockets belong to its parent.
    """

    def __init__(self, make_connection: Callable[[], Link], *, max_idle: int) -> None:
        self._make_connection = make_connection
        self._max_idle = max_idle
        self._idle: deque[tuple[Link, float]] = deque()
        self._pid = os.getpid()
        self._closed = False

    def take_ready(self) -> Link | None:
        """A connection that works as far as can be told without waiting for anything, or None."""
        while self._pid == os.getpid():
            try:
                connection, used_at = self._idle.pop()
            except IndexError:
                return None
            if time.monotonic() - used_at > TRUSTED_IDLE_SECONDS:
                self._idle.append((connection, used_at))
                return None
            if _is_open(connection):
                return connection
            connection.disconnect()
        return None

    def take(self) -> Link:
        """A connection that works; may wait for the server.

        Raises:
            redis.exceptions.RedisError: the server cannot be reached, or refuses.
        """
        if self._pid != os.getpid():
            self._idle, self._pid = deque(), os.getpid()
        connection = self.take_ready()
        if connection is None:
            try:
                connection = self._idle.pop()[0]
            except IndexError:
                connection = self._make_connection()
            connection.connect()
            connection.check_health()
        return connection

    def give_back(self, connection: Link) -> None:
        """Keep a connection, on which nothing is outstanding, for whoever is next."""
        if self._closed or len(self._idle) >= self._max_idle:
            connection.disconnect()
        else:
            self._idle.append((connection, time.monotonic()))

    def close(self) -> None:
        """Close what is idle, and from now on what is given back."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while self._pid == os.getpid():
                self._idle.popleft()[0].disconnect()


def _is_open(connection: Link) -> bool:
    """Whether the server has neither closed the connection nor said anything on it."""
    try:
        return not connection.can_read(timeout=0)
    except (RedisError, OSError):
        return False


def exchange(connection: Link, packed: Sequence[bytes], replies: int) -> None:
    """Send packed commands and read as many replies.

    Raises:
        redis.exceptions.ResponseError: one was refused; all replies are read and the connection can be used on.
        redis.exceptions.RedisError: anything else, after which the connection is closed.
    """
    refusal: ResponseError | None = None
    connection.send_packed_command(packed, check_health=False)
    for _ in range(replies):
        try:
            connection.read_response()
        except ResponseError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
