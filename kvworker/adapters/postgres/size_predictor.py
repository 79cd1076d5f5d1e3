"""Guessing whether a write leaves its entry's size as it is."""

from __future__ import annotations

from typing import Final

_ENTRIES: Final = 4096
#: So many writes of the same size in a row let the next one be expected to be so too.
_CONFIDENT: Final = 2


class SizePredictor:
    """Remembers for how many writes in a row an entry's size has stayed; entries may share a place.

    A right guess saves what a statement that touches no ledger costs less, a seventh; a wrong one costs another
    statement, a third. So it takes two writes to be confident and one to lose it.
    """

    def __init__(self) -> None:
        self._streaks = bytearray(_ENTRIES)

    def expects_same(self, namespace: str, key: str) -> bool:
        """Tell whether the size will likely stay."""
        return self._streaks[hash((namespace, key)) % _ENTRIES] >= _CONFIDENT

    def learn(self, namespace: str, key: str, *, stayed: bool) -> None:
        """Remember whether the size has stayed."""
        place = hash((namespace, key)) % _ENTRIES
        self._streaks[place] = min(self._streaks[place] + 1, _CONFIDENT) if stayed else 0
