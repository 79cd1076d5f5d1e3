"""Lending connections of a pool without asking the pool each time."""

from __future__ import annotations

import threading

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.pool import QueuePool


class ConnectionCache:
    """Keeps connections that come back checked out, up to the pool's size, and lends the last one first.

    SQLAlchemy's checkout and return cost a tenth of a write. Its limits and its timeout hold: a connection
    beyond the pool's size goes back to the pool, and so does every one that somebody waits for there.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._size = engine.pool.size() if isinstance(engine.pool, QueuePool) else 0
        self._idle: list[PoolProxiedConnection] = []
        self._waiting = 0
        self._lock = threading.Lock()

    def borrow_idle(self) -> PoolProxiedConnection | None:
        """Give a connection that is kept, or None."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def borrow(self) -> PoolProxiedConnection:
        """Give a kept connection or one of the pool's; what SQLAlchemy raises when there is none, it raises."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            self._waiting += 1
        try:
            return self._engine.raw_connection()
        finally:
            with self._lock:
                self._waiting -= 1

    def give_back(self, connection: PoolProxiedConnection) -> None:
        """Keep a connection for the next one, or give it to a thread that is waiting for the pool."""
        with self._lock:
            if not self._waiting and len(self._idle) < self._size:
                self._idle.append(connection)
                return
        connection.close()

    def release_idle(self) -> None:
        """Give the idle connections back to the pool."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
