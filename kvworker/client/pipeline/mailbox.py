"""One who waits for what comes from other threads, be it a thread or a coroutine."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Bell(Generic[_Item]):
    """Items that any thread brings, for one that waits on a future."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: list[_Item] = []
        self._news: Future[None] | None = None

    def ring(self, item: _Item) -> None:
        """Bring an item."""
        with self._lock:
            self._items.append(item)
            news, self._news = self._news, None
        if news is not None:
            news.set_result(None)

    def expect(self) -> Future[None]:
        """What is done as soon as there is an item."""
        news: Future[None] = Future()
        with self._lock:
            if not self._items:
                self._news = news
                return news
        news.set_result(None)
        return news

    def take(self) -> list[_Item]:
        """All that have come; nobody waits any more."""
        with self._lock:
            items, self._items, self._news = self._items, [], None
        return items
