"""Connections: one engine per process, made when first used, or the engine of a host program."""

from __future__ import annotations

import os
import threading
import weakref
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

_Result = TypeVar("_Result")

_engines: weakref.WeakSet[ProcessEngine] = weakref.WeakSet()


class ProcessEngine:
    """An engine of this process. After a fork the child makes its own."""

    def __init__(self, make: Callable[[], Engine], dialect: Dialect) -> None:
        self._make = make
        self._dialect = dialect
        self._engine: Engine | None = None
        self._cache: ConnectionCache | None = None
        self._lock = threading.Lock()
        # The parent's connections: letting the collector close them would disturb the parent.
        self._inherited: list[Engine | ConnectionCache | None] = []
        self._gate = ForkGate() if dialect.needs_fork_gate() else None
        _engines.add(self)

    def get(self) -> Engine:
        """Give the engine of this process, with all connections that are not in use in its pool."""
        with self._lock:
            engine = self._engine = self._engine or self._make()
            cache = self._cache = self._cache or ConnectionCache(engine)
        cache.release_idle()
        return engine

    def use(self, work: Callable[[Any], _Result]) -> _Result:
        """Give what ``work`` returns for a driver's connection in autocommit mode.

        Raises:
            StoreUnavailableError: there is no connection to lend.
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
        with self._connecting():
            if self._cache is None:
                self.get()
            cache = self._cache
            assert cache is not None  # noqa: S101 - only a fork forgets it
            return cache, cache.borrow()

    def discard_connections(self) -> None:
        """Close the pooled connections: when one is found broken the others most likely are."""
        if self._engine is not None and self._cache is not None:
            self._cache.release_idle()
            self._engine.dispose()

    def close(self) -> None:
        """Close the engine's connections."""
        self.discard_connections()

    @contextmanager
    def _connecting(self) -> Iterator[None]:
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

    def prepare_fork(self) -> None:
        """Close what a child must not inherit, and open nothing until the fork is done."""
        if self._gate and self._gate.close():
            self.discard_connections()

    def resume_after_fork(self) -> None:
        """Go on in the process that forked."""
        if self._gate:
            self._gate.open()

    def forget_parent(self) -> None:
        """Start anew in a forked child, where locks may be held by a thread that is not there."""
        self._lock = threading.Lock()
        self._gate = ForkGate() if self._dialect.needs_fork_gate() else None
        if self._engine is not None:
            self._inherited += [self._engine, self._cache]
            self._engine = self._cache = None


class HostEngine(ProcessEngine):
    """A host program's engine, whose connections go back as they came."""

    def use(self, work: Callable[[Any], _Result]) -> _Result:
        """Give what ``work`` returns for a driver's connection in autocommit mode."""
        with self._connecting():
            pooled = self.get().execution_options(isolation_level="AUTOCOMMIT").connect()
        with pooled as connection:
            lent = connection.connection.driver_connection
            try:
                return work(lent)
            finally:
                if not self._dialect.is_idle(lent):
                    connection.invalidate()

    def get(self) -> Engine:
        """Give the engine that the host program handed over last."""
        return self._make()

    def discard_connections(self) -> None:
        """Close the pooled connections, as SQLAlchemy itself does when one of them is found broken."""
        self.get().dispose()

    def close(self) -> None:
        """Leave the engine to its owner."""


def _prepare_fork() -> None:
    for engine in list(_engines):
        engine.prepare_fork()


def _resume_after_fork() -> None:
    for engine in list(_engines):
        engine.resume_after_fork()


def _start_anew() -> None:
    for engine in list(_engines):
        engine.forget_parent()


os.register_at_fork(before=_prepare_fork, after_in_parent=_resume_after_fork, after_in_child=_start_anew)
