"""A mailbox into which other threads put items, for a thread or a coroutine that waits for them."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Mailbox(Generic[_Item]):
    """Items from any threads, for one receiver. The receiver waits on a future, so it may be a coroutine."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[_Item] = []
        self._arrival: Future[None] | None = None

    def put(self, item: _Item) -> None:
        """Add an item, and wake the receiver if it waits."""
        with self._lock:
            self._items.append(item)
            arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.set_result(None)

    def next_arrival(self) -> Future[None]:
        """Return a future that is done as soon as there is an item, and done already if there is one now."""
        arrival: Future[None] = Future()
        with self._lock:
            if not self._items:
                self._arrival = arrival
                return arrival
        arrival.set_result(None)
        return arrival

    def pop_all(self) -> list[_Item]:
        """Remove and return all items. Futures of earlier waits are no longer resolved."""
        with self._lock:
            items, self._items, self._arrival = self._items, [], None
        return items
