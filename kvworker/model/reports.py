"""What maintenance tells about what it did. Sizes are in bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep removed. ``complete`` is False when its time budget ended first."""

    deleted_rows: int
    freed_bytes: int
    batches: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PruneReport:
    """How many operation records past their retention were removed."""

    deleted_rows: int
    batches: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LedgerDrift:
    """A ledger that was wrong before ``recompute`` set it right; ``namespace`` None is the global one."""

    namespace: str | None
    recorded_bytes: int
    actual_bytes: int
    recorded_entries: int
    actual_entries: int


@dataclass(frozen=True, slots=True)
class RecomputeReport:
    """What a recompute checked. ``next_after`` is where to go on when its time budget ended first."""

    checked_namespaces: int
    drifts: tuple[LedgerDrift, ...] = field(default=())
    next_after: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every namespace was checked."""
        return self.next_after is None

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able data."""
        return {**asdict(self), "drifts": [asdict(drift) for drift in self.drifts], "complete": self.complete}
