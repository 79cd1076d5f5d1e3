"""Reports of maintenance runs. Sizes are in bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SweepReport:
    """The expired entries that a sweep removed. ``complete`` is False if its time budget ended first."""

    deleted_rows: int
    freed_bytes: int
    batches: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PruneReport:
    """The operation records that a prune removed. ``complete`` is False if its time budget ended first."""

    deleted_rows: int
    batches: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LedgerDrift:
    """A ledger that ``recompute`` corrected. ``namespace`` None is the global ledger.

    The records are operation records, with those that entries hold in reserve. The global ledger does not count them.
    """

    namespace: str | None
    recorded_bytes: int
    actual_bytes: int
    recorded_entries: int
    actual_entries: int
    recorded_records: int = 0
    actual_records: int = 0


@dataclass(frozen=True, slots=True)
class RecomputeReport:
    """The ledgers that a recompute checked and corrected.

    ``next_after`` is the namespace to continue after if the time budget ended first, else None.
    """

    checked_namespaces: int
    drifts: tuple[LedgerDrift, ...] = field(default=())
    next_after: str | None = None

    @property
    def complete(self) -> bool:
        """True if the recompute checked every namespace."""
        return self.next_after is None

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        return {**asdict(self), "drifts": [asdict(drift) for drift in self.drifts], "complete": self.complete}


@dataclass(frozen=True, slots=True)
class StoreProblem:
    """Something that ``verify`` found wrong. ``detail`` says what, without any value.

    Attributes:
        check: The kind of fault: ``schema``, ``entry``, ``record``, ``ledger``, ``shares``, ``quota`` or ``totals``.
        namespace: The namespace that it is in, or None for the whole store.
        detail: The finding, and what should be there.
    """

    check: str
    namespace: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The amounts that ``verify`` read, and the first problems that it found. ``problem_count`` counts all problems."""

    namespaces: int
    entries: int
    records: int
    problem_count: int = 0
    problems: tuple[StoreProblem, ...] = field(default=())
