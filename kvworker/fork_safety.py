"""What a process that forks must do about connections, locks and threads: one mechanism for all who hold some.

A forked child inherits the parent's sockets, which it must not use, and locks that a thread of the parent may have
held at that moment, which nobody in the child can release. Imports nothing of the package.
"""

from __future__ import annotations

import os
import threading
from abc import ABC
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakSet

_Value = TypeVar("_Value")


class ForkAware(ABC):  # noqa: B024 - each hook has a default
    """An object that hears of forks for as long as it lives, once ``watch_forks`` was called with it."""

    def before_fork(self) -> None:  # noqa: B027 - optional
        """Prepare for a fork, in the thread that forks."""

    def after_fork_in_parent(self) -> None:  # noqa: B027 - optional
        """Resume in the process that forked."""

    def after_fork_in_child(self) -> None:  # noqa: B027 - optional
        """Start over in the child, which has only the thread that forked."""


_watching: WeakSet[ForkAware] = WeakSet()


def watch_forks(observer: ForkAware) -> None:
    """Call the observer's hooks at every fork from now on. It is not kept alive by this."""
    _watching.add(observer)


class ProcessLocal(ForkAware, Generic[_Value]):
    """A value that each process makes for itself on first use. Thread-safe.

    No fork happens while ``make`` runs: the child would inherit locks that ``make`` held. A child never uses
    or closes its parent's value, it only keeps it from being collected, since a finalizer could disturb the parent.
    """

    def __init__(self, make: Callable[[], _Value]) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._value: _Value | None = None
        self._inherited: list[_Value] = []
        watch_forks(self)

    def get(self) -> _Value:
        """Return the value, making it if there is none."""
        value = self._value
        if value is not None:
            return value
        with self._lock:
            if self._value is None:
                self._value = self._make()
            return self._value

    def pop(self) -> _Value | None:
        """Remove the value and return it; None if this process has made none."""
        with self._lock:
            value, self._value = self._value, None
            return value

    def before_fork(self) -> None:
        """Wait until no thread is making the value."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Let values be made again."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Forget the parent's value."""
        self._lock = threading.RLock()
        if self._value is not None:
            self._inherited.append(self._value)
            self._value = None


def _before_fork() -> None:
    _forking[:] = list(_watching)
    for observer in _forking:
        observer.before_fork()


def _after_fork_in_parent() -> None:
    for observer in reversed(_forking):
        observer.after_fork_in_parent()
    _forking.clear()


def _after_fork_in_child() -> None:
    for observer in reversed(_forking):
        observer.after_fork_in_child()
    _forking.clear()


#: The observers of the fork that is under way: one that is made meanwhile hears of the next.
_forking: list[ForkAware] = []

os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
