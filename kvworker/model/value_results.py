"""The results of steps that change a value together with others."""

from __future__ import annotations

from dataclasses import dataclass

from kvworker.model.results import ComputedResult


@dataclass(frozen=True, slots=True)
class AppendResult(ComputedResult):
    """The result of ``append``.

    ``length`` is the number of items in the list afterwards. ``dropped`` is the number of those that ``max_items``
    removed from the front, new ones included.
    """

    length: int
    dropped: int
    ttl_seconds: float | None = None
    replayed: bool = False
    version: int | None = None
