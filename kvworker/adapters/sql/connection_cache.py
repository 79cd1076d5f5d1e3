"""Lends connections without asking SQLAlchemy's pool each time."""

from __future__ import annotations

import threading

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.pool import QueuePool

from kvworker.model import PoolUse


class ConnectionCache:
    """Keeps returned connections checked out, up to the pool's size, and lends the most recent one first.

    Checking a connection out of SQLAlchemy's pool and in again costs a tenth of a write. The pool's limits and its
    timeout still hold: a connection beyond the pool's size goes back to the pool, and so does every connection that
    a thread is waiting for there.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._size = engine.pool.size() if isinstance(engine.pool, QueuePool) else 0
        self._idle: list[PoolProxiedConnection] = []
        self._waiting = 0
        self._lock = threading.Lock()

    def borrow_idle(self) -> PoolProxiedConnection | None:
        """Return an idle connection, or None if the cache has none."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def borrow(self) -> PoolProxiedConnection:
        """Return an idle connection or a connection of the pool. Propagates SQLAlchemy's pool errors."""
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
        """Keep a connection for its next user, or return it to the pool if a thread is waiting there."""
        with self._lock:
            if not self._waiting and len(self._idle) < self._size:
                self._idle.append(connection)
                return
        self._return(connection)

    def use(self) -> PoolUse | None:
        """Count the connections; None if the engine's pool cannot tell."""
        pool = self._engine.pool
        if not isinstance(pool, QueuePool):
            return None
        idle, lent = len(self._idle), pool.checkedout()
        limit = None if pool._max_overflow < 0 else pool.size() + pool._max_overflow
        return PoolUse(max(0, lent - idle), idle + pool.checkedin(), limit)

    def release_idle(self) -> None:
        """Return the idle connections to the pool."""
        for connection in self._take_idle():
            self._return(connection)

    def close_idle(self) -> None:
        """Close the idle connections. Some may be of a pool that was disposed of, which would leave them open."""
        for connection in self._take_idle():
            connection.invalidate()

    def _return(self, connection: PoolProxiedConnection) -> None:
        """Return a connection to its pool, or close it: a pool that was disposed of would leave it open."""
        if getattr(connection, "_pool", None) is self._engine.pool:
            connection.close()
        else:
            connection.invalidate()

    def _take_idle(self) -> list[PoolProxiedConnection]:
        with self._lock:
            idle, self._idle = self._idle, []
        return idle
