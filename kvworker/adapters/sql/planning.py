"""What becomes of entries when the steps of a write are taken one after the other. Pure.

Instants are seconds since 1970 by the database's clock.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kvworker.adapters.sql.dialect import QuotaRefusedError
from kvworker.adapters.sql.operation_records import entry_record, written_record
from kvworker.errors import (
    CounterOverflowError,
    GlobalQuotaExceededError,
    InvalidValueTypeError,
    KVStoreError,
    NamespaceQuotaExceededError,
    VersionConflictError,
)
from kvworker.model import INT64_MAX, INT64_MIN, Step

_JSON_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
#: The digits and the sign of the longest signed 64-bit integer.
_MAX_INTEGER_LENGTH = 20


class StepRefusedError(Exception):
    """A step was refused, and with it the whole write."""

    def __init__(self, index: int, error: KVStoreError) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as the database has it, or will; of 0 bytes if it is not there.

    ``text`` is None where the value was not read, because nothing that is planned depends on it.
    """

    text: str | None = None
    expires_at: float | None = None
    size_bytes: int = 0
    version: int = 0

    def is_live(self, now: float) -> bool:
        """Tell whether the entry is there and has not expired."""
        return self.size_bytes > 0 and (self.expires_at is None or self.expires_at > now)


@dataclass(slots=True)
class Room:
    """The quotas, and what is used of them, where each step is held to them on its own.

    ``global_bytes`` None is no global quota. ``purged`` tells for which of the two (True is the global one)
    expired entries are gone already, so that a refusal is final.
    """

    quota_bytes: int
    used_bytes: int
    global_quota_bytes: int | None
    global_used_bytes: int
    purged: frozenset[bool]

    def take(self, namespace: str, grown_bytes: int) -> None:
        """Take room for growth, or give it back.

        Raises:
            NamespaceQuotaExceededError, GlobalQuotaExceededError: it does not fit.
            QuotaRefusedError: it does not fit as long as expired entries are not purged.
        """
        if grown_bytes > 0 and self.used_bytes + grown_bytes > self.quota_bytes:
            self._refuse(is_global=False)
            raise NamespaceQuotaExceededError(namespace, self.quota_bytes, self.used_bytes, grown_bytes)
        limit_bytes = self.global_quota_bytes
        if grown_bytes > 0 and limit_bytes is not None and self.global_used_bytes + grown_bytes > limit_bytes:
            self._refuse(is_global=True)
            raise GlobalQuotaExceededError(limit_bytes, self.global_used_bytes, grown_bytes)
        self.used_bytes += grown_bytes
        self.global_used_bytes += grown_bytes

    def _refuse(self, *, is_global: bool) -> None:
        if is_global not in self.purged:
            raise QuotaRefusedError(is_global=is_global)


@dataclass(slots=True)
class OpenRoom:
    """As much room as is asked for: what steps need that are held to the quotas all at once."""

    grown_bytes: int = 0
    peak_bytes: int = 0

    def take(self, _namespace: str, grown_bytes: int) -> None:
        """Take room for growth, or give it back."""
        self.grown_bytes += grown_bytes
        self.peak_bytes = max(self.peak_bytes, self.grown_bytes)

    def is_certain(self) -> bool:
        """Tell whether each step fits where all of them do."""
        return self.peak_bytes <= max(0, self.grown_bytes)


@dataclass(slots=True)
class Plan:
    """Entries as they become, and each step's record, or its error where steps are refused on their own."""

    before: Mapping[str, Entry]
    after: dict[str, Entry]
    outcomes: list[str | KVStoreError] = field(default_factory=list)
    read_bytes: int = 0
    #: The last version that was given out for each key that is written.
    versions: dict[str, int] = field(default_factory=dict)

    @property
    def changed(self) -> dict[str, Entry]:
        """The entries to store."""
        return {k: e for k, e in self.after.items() if e.size_bytes > 0 and e != self.before[k]}

    @property
    def removed(self) -> list[str]:
        """The keys of the entries to remove, if they are there."""
        return [key for key, entry in self.after.items() if entry.size_bytes == 0]

    @property
    def grown_bytes(self) -> int:
        """By how much the ledger grows."""
        return sum(entry.size_bytes - self.before[key].size_bytes for key, entry in self.after.items())

    @property
    def grown_entries(self) -> int:
        """By how many entries the ledger grows."""
        return sum((e.size_bytes > 0) - (self.before[key].size_bytes > 0) for key, e in self.after.items())


@dataclass(frozen=True, slots=True)
class Planner:
    """Takes steps on the entries of a namespace as they are ``now``.

    ``version`` is the least that an entry written now may end with: the clock in microseconds, which is past every
    version that was given out, so that an entry which is made again never has an old one. Of several writes of
    a key each has its own, and it is the last that has this one.
    """

    namespace: str
    now: float
    version: int

    def plan(self, entries: Mapping[str, Entry], steps: Sequence[Step], room: Room | OpenRoom | None = None) -> Plan:
        """Take all steps; with ``room`` each is refused on its own, without it the first refusal ends it.

        Raises:
            StepRefusedError: a step was refused.
            QuotaRefusedError: expired entries are to be purged first.
        """
        plan = Plan(entries, dict(entries))
        writes = Counter(step.key for step in steps if step.action in {"set", "increment"})
        for key, count in writes.items():
            plan.versions[key] = max(entries[key].version, self.version - count)
        for index, step in enumerate(steps):
            try:
                plan.outcomes.append(self._apply(step, plan, room))
            except KVStoreError as error:
                if room is None:
                    raise StepRefusedError(index, error) from error
                plan.outcomes.append(error)
        return plan

    def _apply(self, step: Step, plan: Plan, room: Room | OpenRoom | None) -> str:
        entry = plan.after[step.key]
        changed, record = self._take(step, entry, plan.versions.get(step.key, 0) + 1)
        if room is not None:
            room.take(self.namespace, changed.size_bytes - entry.size_bytes)
        if step.action == "get":
            plan.read_bytes += entry.size_bytes
        plan.after[step.key] = changed
        if changed.version > entry.version:
            plan.versions[step.key] = changed.version
        return record

    def _take(self, step: Step, entry: Entry, version: int) -> tuple[Entry, str]:
        live = entry.is_live(self.now)
        self._check_condition(step, entry.version if live else None)
        match step.action:
            case "get":
                return entry, entry_record(entry.text, entry.expires_at, entry.version) if live else ""
            case "delete":
                return Entry(), "true" if live else "false"
            case "set":
                kept = entry.expires_at if live and step.keep_ttl else None
                return _written(step.text, self._expiry(step, kept), version)
            case "increment":
                return self._incremented(step, entry if live else None, version)
        return self._touched(step, entry) if live else (entry, "")

    def _check_condition(self, step: Step, actual_version: int | None) -> None:
        expected = step.expected_version
        if (expected is not None and actual_version != expected) or (step.if_absent and actual_version is not None):
            raise VersionConflictError(self.namespace, step.key, expected, actual_version)

    def _touched(self, step: Step, entry: Entry) -> tuple[Entry, str]:
        changed = replace(entry, expires_at=self._expiry(step, None))
        return changed, written_record(changed.expires_at, changed.version)

    def _incremented(self, step: Step, counter: Entry | None, version: int) -> tuple[Entry, str]:
        value = self._counter(step, counter.text or "") + step.delta if counter else int(step.text)
        if not INT64_MIN <= value <= INT64_MAX:
            raise CounterOverflowError(self.namespace, step.key)
        changed, record = _written(str(value), self._expiry(step, counter.expires_at if counter else None), version)
        return changed, f"{value} {record}"

    def _counter(self, step: Step, text: str) -> int:
        if not _JSON_INTEGER.fullmatch(text):
            raise InvalidValueTypeError(self.namespace, step.key)
        if len(text) > _MAX_INTEGER_LENGTH or not INT64_MIN <= int(text) <= INT64_MAX:
            raise CounterOverflowError(self.namespace, step.key)
        return int(text)

    def _expiry(self, step: Step, otherwise: float | None) -> float | None:
        return otherwise if step.ttl_seconds is None else self.now + step.ttl_seconds


def _written(text: str, expires_at: float | None, version: int) -> tuple[Entry, str]:
    return Entry(text, expires_at, len(text.encode()), version), written_record(expires_at, version)
