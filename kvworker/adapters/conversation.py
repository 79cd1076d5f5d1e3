"""The conversation store's engine, if a host program hands one over at run time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from kvworker.fork_safety import ForkAware, watch_forks

if TYPE_CHECKING:
    from sqlalchemy import Engine, Pool


class _HostEngine(ForkAware):
    """The engine as handed over. A forked child gives it a new pool on first use."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._lock = threading.Lock()
        self._has_parents_pool = False
        # If the collector closed a parent's connections, it would disturb the parent.
        self._inherited_pools: list[Pool] = []
        watch_forks(self)

    def set(self, engine: Engine | None) -> None:
        """Replace the engine, or remove it with None. The new one's pool is this process's own."""
        with self._lock:
            self._engine = engine
            self._has_parents_pool = False

    def get(self) -> Engine | None:
        """Return the engine, with a pool that this process made, or None."""
        if self._has_parents_pool:
            self._replace_pool()
        return self._engine

    def after_fork_in_child(self) -> None:
        """Note that the pool is the parent's. It is replaced on first use, because a fork should be quick."""
        self._lock = threading.Lock()
        self._has_parents_pool = self._engine is not None

    def _replace_pool(self) -> None:
        with self._lock:
            if self._engine is not None and self._has_parents_pool:
                self._inherited_pools.append(self._engine.pool)
                self._engine.dispose(close=False)
            self._has_parents_pool = False


_host_engine = _HostEngine()


def use_conversation_engine(engine: Engine | None) -> None:
    """Hand over the engine for adapters with ``reuse_conversation_store`` and without a url.

    The engine stays the caller's: its connections go back in the state that they came in, and closing an adapter
    leaves the engine open.

    Args:
        engine: An engine of the adapter's own database and driver; None takes the last one back.
    """
    _host_engine.set(engine)


def conversation_engine() -> Engine | None:
    """Return the engine that was handed over, or None. In a forked process it has a new pool."""
    return _host_engine.get()
