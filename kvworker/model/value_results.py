"""The results of steps that change a value together with others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kvworker.model.results import ComputedResult
from kvworker.model.values import DecodedValue


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


@dataclass(frozen=True, slots=True)
class MergeResult(ComputedResult):
    """The result of ``merge``. It does not hold the merged value."""

    ttl_seconds: float | None = None
    replayed: bool = False
    version: int | None = None


@dataclass(frozen=True, slots=True)
class GetAndDeleteResult(ComputedResult):
    """The result of ``get_and_delete``: the value that was removed. A missing or expired entry has ``found`` False."""

    found: bool
    value: DecodedValue = None
    replayed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that crosses the queue, without a value if there was no entry."""
        data = ComputedResult.to_dict(self)
        if not self.found:
            del data["value"]
        return data
