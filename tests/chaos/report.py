"""The outcome of a scenario."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """The outcome of a scenario.

    ``recovery_seconds`` is the longest time from the end of a fault to the next successful call. ``observations`` is
    the number of times that the observer could read the database.
    """

    scenario: str
    seed: int
    seconds: float
    operations: int = 0
    calls: int = 0
    faults: int = 0
    observations: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    p50_seconds: float = 0.0
    p99_seconds: float = 0.0
    longest_seconds: float = 0.0
    recovery_seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        return asdict(self)
