"""A bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Recent(Generic[_Key, _Value]):
    """A dict that keeps only the keys set last, safe in threads. Forgetting a key must only cost time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[_Key, _Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: _Key) -> _Value | None:
        """Return the key's value, or None."""
        with self._lock:
            return self._values.get(key)

    def set(self, key: _Key, value: _Value) -> None:
        """Set the key's value, and forget the key that was set longest ago if there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            if len(self._values) > self._size:
                self._values.popitem(last=False)

    def forget(self, key: _Key) -> None:
        """Forget a key, if it is known."""
        with self._lock:
            self._values.pop(key, None)
