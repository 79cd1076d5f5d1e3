"""The evidence for a verdict: the callers' history, and the content of the database."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

from tests.chaos.history import Answer, Call, Operation, Step, operations_of

#: A namespace with a key, or with an operation id.
Name: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry's row; ``text`` is the stored JSON text of its value."""

    text: str
    size_bytes: int
    version: int
    expires: bool = False

    @property
    def value(self) -> Any:
        """The value, parsed."""
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The sum of a namespace's ledger slots; ``quota_bytes`` is the namespace's own quota."""

    used_bytes: int
    entry_count: int
    quota_bytes: int | None = None


@dataclass(frozen=True)
class Moment:
    """One transaction's view: the ledgers, the sums of the entries (bytes, rows), and the twin counters."""

    ledgers: Mapping[str, Ledger]
    stored: Mapping[str, tuple[int, int]]
    twins: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """The final content of the database, as one transaction sees it."""

    entries: Mapping[Name, Entry] = field(default_factory=dict)
    ledgers: Mapping[str, Ledger] = field(default_factory=dict)
    records: frozenset[Name] = frozenset()

    def moment(self) -> Moment:
        """Reduce the snapshot to the sums that an observer would see."""
        stored: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for (namespace, _), entry in self.entries.items():
            size_bytes, rows = stored[namespace]
            stored[namespace] = size_bytes + entry.size_bytes, rows + 1
        return Moment(self.ledgers, dict(stored))


@dataclass(frozen=True, slots=True)
class Effect:
    """A step of a write. If it was applied, that happened between ``began`` and ``ended``."""

    operation: Operation
    step: Step
    answer: Answer | None

    @property
    def began(self) -> float:
        """The earliest time at which the step can have been applied."""
        return self.operation.first.began

    @property
    def ended(self) -> float:
        """The latest time at which an acknowledged step can have been applied."""
        return (self.operation.success or self.operation.tries[-1]).ended

    @property
    def is_applied(self) -> bool:
        """True if the write was acknowledged."""
        return self.operation.success is not None


@dataclass(frozen=True)
class Evidence:
    """The evidence: the callers' history, and the content of the database afterwards."""

    calls: Sequence[Call]
    snapshot: Snapshot

    @cached_property
    def operations(self) -> list[Operation]:
        """The writes, each with all its tries."""
        return operations_of(self.calls)

    @cached_property
    def effects(self) -> Mapping[Name, list[Effect]]:
        """The requested steps of each key."""
        found: dict[Name, list[Effect]] = defaultdict(list)
        for operation in self.operations:
            answers = operation.success.answers if operation.success else ()
            for index, step in enumerate(operation.first.steps):
                answer = answers[index] if index < len(answers) else None
                found[operation.first.namespace, step.key].append(Effect(operation, step, answer))
        return found

    def applied(self, name: Name, action: str) -> list[Effect]:
        """Select the acknowledged effects of one action on a key."""
        return [effect for effect in self.effects[name] if effect.step.action == action and effect.is_applied]
