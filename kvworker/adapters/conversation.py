"""The conversation store's engine, when a host program hands one over at run time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Engine, Pool

_handed_over: Engine | None = None
_owner_pid = 0
# Letting the collector close a parent's connections would disturb the parent.
_inherited_pools: list[Pool] = []


def use_conversation_engine(engine: Engine | None) -> None:
    """Hand over the engine that adapters with ``reuse_conversation_store`` and no url of their own use.

    The engine stays the caller's: its connections are given back as they came, and closing an adapter
    leaves it open. None takes it back.
    """
    global _handed_over, _owner_pid
    _handed_over, _owner_pid = engine, os.getpid()


def conversation_engine() -> Engine | None:
    """Give the engine that was handed over, if any; in a forked process with a pool of its own."""
    global _owner_pid  # noqa: PLW0603 - see above
    if _handed_over is not None and _owner_pid != os.getpid():
        _inherited_pools.append(_handed_over.pool)
        _handed_over.dispose(close=False)
        _owner_pid = os.getpid()
    return _handed_over
