"""The report of an import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LineError:
    """A line that was not imported, counted from 1, and the reason."""

    line: int
    error: str


@dataclass
class ImportReport:
    """The outcome of an import. A replayed line was applied by an earlier import of the same file.

    ``repeated`` names the lines that write the key of an earlier line. ``unanswered`` counts the lines that were sent
    and had no answer when the import was interrupted; to repeat the import settles them. ``present`` counts the entries
    that an import of absent ones left as they were.
    """

    applied: int = 0
    replayed: int = 0
    errors: list[LineError] = field(default_factory=list)
    repeated: list[int] = field(default_factory=list)
    unanswered: int = 0
    present: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-able data."""
        errors = [{"line": error.line, "error": error.error} for error in self.errors]
        return {
            "applied": self.applied,
            "replayed": self.replayed,
            "failed": len(errors),
            "unanswered": self.unanswered,
            "present": self.present,
            "repeated": self.repeated,
            "errors": errors,
        }
