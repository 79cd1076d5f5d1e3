"""The calls that an import makes: batches of entries, and quotas. Each has an idempotency key that its lines give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

_BATCH_LINES = 200


@dataclass
class EntryBatch:
    """Lines of one namespace that are sent together, in order.

    A batch that is sent again repeats its refusals. Therefore the lines that it refused make a batch of the next round,
    with another idempotency key: which lines these are never changes, so that they are applied only once, too.
    """

    namespace: str
    round: int = 1
    numbers: list[int] = field(default_factory=list)
    operations: list[dict[str, Any]] = field(default_factory=list)
    size_bytes: int = 0

    def has_room(self, line_bytes: int, limit_bytes: int) -> bool:
        """Return whether a line of so many bytes can join. The first line always can."""
        return not self.numbers or (len(self.numbers) < _BATCH_LINES and self.size_bytes + line_bytes <= limit_bytes)

    def add(self, number: int, operation: dict[str, Any], line_bytes: int) -> None:
        """Add a line."""
        self.numbers.append(number)
        self.operations.append(operation)
        self.size_bytes += line_bytes

    def call(self, import_id: str) -> tuple[str, dict[str, Any]]:
        """Return the tool to call, and its arguments."""
        again = f"-{self.round}" if self.round > 1 else ""
        return "kv_batch", {
            "namespace": self.namespace,
            "operations": self.operations,
            "atomic": False,
            "idempotency_key": f"import-{import_id}-{self.numbers[0]}-{self.numbers[-1]}{again}",
        }

    def next_round(self, places: Iterable[int]) -> EntryBatch:
        """Return the batch that tries the lines at these places again."""
        batch = EntryBatch(self.namespace, self.round + 1)
        for place in places:
            batch.add(self.numbers[place], self.operations[place], 0)
        return batch

    def conflicts(self, later: ImportCall) -> bool:
        """Return whether this must be answered before a later call is sent. Workers do not keep calls in order."""
        if self.namespace != later.namespace:
            return False
        return isinstance(later, QuotaLine) or not self._keys().isdisjoint(later._keys())

    def _keys(self) -> set[str]:
        return {operation["key"] for operation in self.operations}


@dataclass
class QuotaLine:
    """A line that gives a namespace its own quota."""

    number: int
    arguments: dict[str, Any]

    @property
    def namespace(self) -> str:
        """The namespace."""
        return str(self.arguments["namespace"])

    @property
    def numbers(self) -> list[int]:
        """The number of the line."""
        return [self.number]

    def call(self, import_id: str) -> tuple[str, dict[str, Any]]:
        """Return the tool to call, and its arguments."""
        return "kv_set_quota", {**self.arguments, "idempotency_key": f"import-{import_id}-{self.number}"}

    def conflicts(self, later: ImportCall) -> bool:
        """Return whether this must be answered before a later call is sent: the quota decides what fits."""
        return self.namespace == later.namespace


ImportCall: TypeAlias = EntryBatch | QuotaLine
