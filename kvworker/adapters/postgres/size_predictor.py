"""Predicts whether a write keeps the size of its entry."""

from __future__ import annotations

from typing import Final

_SLOTS: Final = 4096
#: After this many writes of the same size in a row, the next one is expected to keep it too.
_CONFIDENT_STREAK: Final = 2


class SizePredictor:
    """Remembers how many writes in a row kept an entry's size. Entries may share a slot.

    A statement that touches no ledger applies a write that keeps the size. A hit saves a seventh of the usual
    statement, a miss costs a third. So it takes two writes to become confident, and one to lose confidence.
    """

    def __init__(self) -> None:
        self._streaks = bytearray(_SLOTS)

    def expects_same_size(self, namespace: str, key: str) -> bool:
        """Return whether the next write probably keeps the entry's size."""
        return self._streaks[hash((namespace, key)) % _SLOTS] >= _CONFIDENT_STREAK

    def record_write(self, namespace: str, key: str, *, kept_size: bool) -> None:
        """Record whether a write kept the entry's size."""
        slot = hash((namespace, key)) % _SLOTS
        self._streaks[slot] = min(self._streaks[slot] + 1, _CONFIDENT_STREAK) if kept_size else 0
