"""One mechanism for everything that must not survive a fork: connections, locks and threads.

A forked child inherits the parent's sockets, which it must not use. It also inherits locks that another thread of
the parent may have held at that moment, and no thread of the child can release those. This module imports nothing
from the package.
"""

from __future__ import annotations

import concurrent.futures.thread
import logging
import os
import threading
from abc import ABC
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Generic, TypeVar
from weakref import ref

logger = logging.getLogger(__name__)

_Value = TypeVar("_Value")
_Class = TypeVar("_Class", bound=type)


class ForkAware(ABC):  # noqa: B024 - each hook has a default
    """An object whose hooks run at every fork, from the call of ``watch_forks`` until the object is collected."""

    def before_fork(self) -> None:  # noqa: B027 - optional
        """Prepare for a fork, in the thread that forks."""

    def after_fork_in_parent(self) -> None:  # noqa: B027 - optional
        """Resume in the process that forked."""

    def after_fork_in_child(self) -> None:  # noqa: B027 - optional
        """Start over in the child, which has only the thread that forked."""


#: The observers in the order of registration, which all forking threads follow. Another thread or the garbage collector
#: may change it at any moment, so every use is a single atomic call. A WeakSet is iterated in many steps, and could
#: change between two of them.
_observers: dict[ref[ForkAware], None] = {}


def _forget(observer: ref[ForkAware]) -> None:
    _observers.pop(observer, None)


def watch_forks(observer: ForkAware) -> None:
    """Call the observer's hooks at every fork from now on.

    Args:
        observer: The object to notify. Only a weak reference to it is kept.
    """
    _observers[ref(observer, _forget)] = None


class ProcessLocal(ForkAware, Generic[_Value]):
    """A value that each process makes for itself on first use. Thread-safe.

    A fork waits while ``make`` runs, because the child would inherit the locks that ``make`` holds. Only one thread
    of a process makes such a value at a time, so a fork never waits for more than one. A child never uses or closes
    its parent's value. It keeps a reference to it, because a finalizer could disturb the parent.
    """

    def __init__(self, make: Callable[[], _Value]) -> None:
        self._make = make
        self._value: _Value | None = None
        self._inherited: list[_Value] = []
        watch_forks(self)

    def get(self) -> _Value:
        """Return this process's value, and make it first if there is none."""
        value = self._value
        if value is not None:
            return value
        with _fork.lock:
            if self._value is None:
                self._value = self._make()
            return self._value

    def pop(self) -> _Value | None:
        """Remove this process's value and return it, or None if it was never made."""
        with _fork.lock:
            value, self._value = self._value, None
            return value

    def after_fork_in_child(self) -> None:
        """Forget the parent's value."""
        if self._value is not None:
            self._inherited.append(self._value)
            self._value = None


class _PropertyLocks(ForkAware):
    """Replaces the locks of cached properties in a forked child."""

    def __init__(self) -> None:
        self.properties: list[Any] = []
        watch_forks(self)

    def after_fork_in_child(self) -> None:
        """Replace the locks, which a thread of the parent may have held."""
        for attribute in self.properties:
            attribute.lock = threading.RLock()


_property_locks = _PropertyLocks()


def with_own_property_locks(cls: _Class) -> _Class:
    """Give a class its own copies of inherited cached properties, whose locks a forked child replaces.

    A cached property of kombu, and one of ``functools`` before Python 3.12, has one lock for all instances of the
    class that defines it. If another thread computes the property during a fork, the child waits for that lock
    forever. A subclass with copies is safe from that, and leaves the base classes as they are.

    Args:
        cls: The class to decorate.

    Returns:
        The same class.
    """
    inherited: dict[str, Any] = {}
    for base in reversed(cls.__mro__[1:]):
        inherited.update(vars(base))
    for name, attribute in inherited.items():
        if _has_lock(attribute) and name not in vars(cls):
            # Not copy.copy, which would add an attribute to the property's class.
            own = object.__new__(type(attribute))
            vars(own).update(vars(attribute))
            setattr(cls, name, own)
    properties = [attribute for attribute in vars(cls).values() if _has_lock(attribute)]
    for attribute in properties:
        attribute.lock = threading.RLock()
    _property_locks.properties += properties
    return cls


def _has_lock(attribute: object) -> bool:
    return isinstance(attribute, cached_property) and hasattr(attribute, "lock")


class _Fork:
    """The fork that this process is making. Its lock is held from before the fork until after it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.thread_id: int | None = None
        self.prepared: list[ForkAware] = []


_fork = _Fork()


def _before_fork() -> None:
    _fork.lock.acquire()
    _fork.thread_id, _fork.prepared = threading.get_ident(), []
    for observer in _living_observers():
        # First noted, then prepared: an interrupt in between must not leave it prepared for good.
        _fork.prepared.append(observer)
        observer.before_fork()


def _after_fork_in_parent() -> None:
    if _fork.thread_id != threading.get_ident():
        return  # An interrupt ended the wait for the lock, which another thread holds.
    try:
        prepared, _fork.thread_id, _fork.prepared = _fork.prepared, None, []
        _call_each(observer.after_fork_in_parent for observer in reversed(prepared))
    finally:
        _fork.lock.release()


def _after_fork_in_child() -> None:
    _fork.lock, _fork.thread_id, _fork.prepared = threading.RLock(), None, []
    # Includes objects that started watching after the others were prepared.
    _call_each(observer.after_fork_in_child for observer in reversed(_living_observers()))


def _call_each(hooks: Iterable[Callable[[], None]]) -> None:
    for hook in hooks:
        try:
            hook()
        except Exception:
            logger.exception("an object could not follow a fork; the others do")


def _living_observers() -> list[ForkAware]:
    references = _observers.copy()
    return [observer for observer in (reference() for reference in references) if observer is not None]


# Python runs the hooks before a fork in the reverse order of their registration. Importing concurrent.futures.thread
# registers one that locks the start of threads. It must run after ours, which waits for threads that may start some.
assert concurrent.futures.thread  # noqa: S101 - it is imported for its hook
os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
