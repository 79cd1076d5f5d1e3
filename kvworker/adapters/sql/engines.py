"""Connections: one engine for each process, made on first use, or the engine of a host program."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Engine, PoolProxiedConnection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from kvworker.adapters.sql.connection_cache import ConnectionCache
from kvworker.adapters.sql.dialect import Dialect
from kvworker.adapters.sql.fork_gate import ForkGate
from kvworker.errors import StoreUnavailableError
from kvworker.fork_safety import ForkAware, watch_forks
from kvworker.model import PoolUse

_Result = TypeVar("_Result")


class ProcessEngine(ForkAware):
    """An engine of this process. After a fork the child makes its own.

    A database that needs a fork gate has its connections closed during a fork, which a ``ProcessLocal`` could not do.
    """

    def __init__(self, make: Callable[[], Engine], dialect: Dialect) -> None:
        self._make = make
        self._dialect = dialect
        self._engine: Engine | None = None
        self._cache: ConnectionCache | None = None
        self._lock = threading.Lock()
        # The parent's connections, in a child. If the collector closed them, it would disturb the parent.
        self._inherited: list[Engine | ConnectionCache | None] = []
        self._gate = ForkGate() if dialect.needs_fork_gate() else None
        watch_forks(self)

    def get(self) -> Engine:
        """Return the engine of this process, with all idle connections in its pool."""
        with self._lock:
            engine = self._engine = self._engine or self._make()
            cache = self._cache = self._cache or ConnectionCache(engine)
        cache.release_idle()
        return engine

    def use(self, work: Callable[[Any], _Result]) -> _Result:
        """Return the result of ``work`` for a driver's connection in autocommit mode.

        Raises:
            StoreUnavailableError: no connection can be had.
        """
        if self._gate is None:
            return self._use(work)
        with self._gate.passing():
            return self._use(work)

    def _use(self, work: Callable[[Any], _Result]) -> _Result:
        cache = self._cache
        pooled = cache.borrow_idle() if cache else None
        if cache is None or pooled is None:
            cache, pooled = self._borrow()
        connection = pooled.driver_connection
        try:
            return work(connection)
        finally:
            if self._dialect.is_idle(connection):
                cache.give_back(pooled)
            else:
                pooled.invalidate()

    def _borrow(self) -> tuple[ConnectionCache, PoolProxiedConnection]:
        with self._translating_errors():
            if self._cache is None:
                self.get()
            cache = self._cache
            assert cache is not None  # noqa: S101 - only a fork forgets it
            return cache, cache.borrow()

    def pool_use(self) -> PoolUse | None:
        """Count this process's connections; None if it has made none, or its pool cannot tell."""
        cache = self._cache
        return cache.use() if cache else None

    def discard_connections(self) -> None:
        """Close the idle connections. If one of them is found broken, most likely all are."""
        if self._engine is not None and self._cache is not None:
            self._cache.close_idle()
            self._engine.dispose()

    def close(self) -> None:
        """Close the engine's connections."""
        self.discard_connections()

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise StoreUnavailableError(
                "no database connection became free in time; raise pool.size or pool.max_overflow, or use fewer threads"
            ) from error
        except DBAPIError as error:
            cause = error.orig if isinstance(error.orig, Exception) else error
            raise self._dialect.cannot_connect(cause) from cause
        except SQLAlchemyError as error:
            raise self._dialect.cannot_connect(error) from error
        except self._dialect.driver_errors as error:
            raise self._dialect.cannot_connect(error) from error

    def before_fork(self) -> None:
        """Close what a child must not inherit, and open nothing until the fork is done."""
        if self._gate and self._gate.close():
            self.discard_connections()

    def after_fork_in_parent(self) -> None:
        """Lend connections again."""
        if self._gate:
            self._gate.open()

    def after_fork_in_child(self) -> None:
        """Start over with new locks: threads that do not exist in the child may hold the old ones."""
        self._lock = threading.Lock()
        self._gate = ForkGate() if self._dialect.needs_fork_gate() else None
        if self._engine is not None:
            self._inherited += [self._engine, self._cache]
            self._engine = self._cache = None


class HostEngine(ProcessEngine):
    """A host program's engine. Its connections go back in the state that they came in."""

    def use(self, work: Callable[[Any], _Result]) -> _Result:
        """Return the result of ``work`` for a driver's connection in autocommit mode."""
        with self._translating_errors():
            pooled = self.get().execution_options(isolation_level="AUTOCOMMIT").connect()
        with pooled as connection:
            driver_connection = connection.connection.driver_connection
            try:
                with self._dialect.bounded(driver_connection):
                    return work(driver_connection)
            finally:
                if not self._dialect.is_idle(driver_connection):
                    connection.invalidate()

    def get(self) -> Engine:
        """Return the engine that the host program handed over last."""
        return self._make()

    def discard_connections(self) -> None:
        """Close the pooled connections, as SQLAlchemy does when it finds one of them broken."""
        self.get().dispose()

    def close(self) -> None:
        """Leave the engine to its owner."""
