"""Decides in Python what a write's steps do to its entries, one step after the other. Pure: no database.

Instants are seconds since 1970 by the database's clock.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kvworker.adapters.sql.operation_records import computed_record, read_entry_text, written_record
from kvworker.adapters.sql.signals import QuotaRefusedError
from kvworker.adapters.sql.write import Quota
from kvworker.errors import (
    BatchRefusedError,
    CounterOverflowError,
    GlobalQuotaExceededError,
    InvalidValueTypeError,
    KVStoreError,
    LimitExceededError,
    NamespaceQuotaExceededError,
    VersionConflictError,
)
from kvworker.model import INT64_MAX, INT64_MIN, ComputedStep, Step, StepMoment, StoredEntry

_JSON_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
#: The digits and the sign of the longest signed 64-bit integer.
_MAX_INTEGER_LENGTH = 20


class StepRefusedError(Exception):
    """A step was refused, and the whole write with it. ``error`` is the step's own."""

    def __init__(self, index: int, error: KVStoreError) -> None:
        super().__init__(index, error)
        self.index = index
        self.error = error

    def error_for(self, action: str) -> KVStoreError:
        """Return the error for the caller of a write with this action: a batch names the step as well."""
        if action != "batch":
            return self.error
        return BatchRefusedError(self.index, type(self.error).__name__, self.error.args)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as stored, or as planned. A missing entry has 0 bytes.

    ``text`` is None if the value was not read because the plan does not depend on it. ``reserve`` is the number of
    operation records that the ledger has counted in advance for this entry; one of them is for its deletion.
    """

    text: str | None = None
    expires_at: float | None = None
    size_bytes: int = 0
    version: int = 0
    reserve: int = 0

    def is_live(self, now: float) -> bool:
        """Return whether the entry exists and has not expired."""
        return self.size_bytes > 0 and (self.expires_at is None or self.expires_at > now)


@dataclass(slots=True)
class Room:
    """The room that the quotas leave, charged step by step: a step that does not fit is refused individually.

    ``global_quota_bytes`` is None without a global quota, and ``entry_limit`` without a limit of entries. ``purged``
    names the quotas whose expired entries were purged already, so that a refusal by them is final.
    """

    quota_bytes: int
    used_bytes: int
    global_quota_bytes: int | None
    global_used_bytes: int
    purged: frozenset[Quota]
    entry_limit: int | None = None
    entry_count: int = 0

    def charge(self, namespace: str, grown_bytes: int, grown_entries: int = 0) -> None:
        """Charge growth to both ledgers, or credit shrinkage.

        Raises:
            NamespaceQuotaExceededError, GlobalQuotaExceededError, LimitExceededError: it does not fit.
            QuotaRefusedError: it does not fit, but purging expired entries may help.
        """
        if grown_bytes > 0:
            self._check_bytes(namespace, grown_bytes)
        limit = self.entry_limit
        if grown_entries > 0 and limit is not None and self.entry_count + grown_entries > limit:
            self._ask_for_purge("entries")
            raise LimitExceededError("entries", namespace, limit, self.entry_count)
        self.used_bytes += grown_bytes
        self.global_used_bytes += grown_bytes
        self.entry_count += grown_entries

    def _check_bytes(self, namespace: str, grown_bytes: int) -> None:
        if self.used_bytes + grown_bytes > self.quota_bytes:
            self._ask_for_purge("namespace")
            raise NamespaceQuotaExceededError(namespace, self.quota_bytes, self.used_bytes, grown_bytes)
        limit_bytes = self.global_quota_bytes
        if limit_bytes is not None and self.global_used_bytes + grown_bytes > limit_bytes:
            self._ask_for_purge("store")
            raise GlobalQuotaExceededError(limit_bytes, self.global_used_bytes, grown_bytes)

    def _ask_for_purge(self, quota: Quota) -> None:
        if quota not in self.purged:
            raise QuotaRefusedError(quota)


@dataclass(slots=True)
class UnboundedRoom:
    """Measures growth without a limit: the database checks the whole write against the quotas at once."""

    grown_bytes: int = 0
    peak_bytes: int = 0
    grown_entries: int = 0
    peak_entries: int = 0

    def charge(self, _namespace: str, grown_bytes: int, grown_entries: int = 0) -> None:
        """Add growth, or subtract shrinkage."""
        self.grown_bytes += grown_bytes
        self.peak_bytes = max(self.peak_bytes, self.grown_bytes)
        self.grown_entries += grown_entries
        self.peak_entries = max(self.peak_entries, self.grown_entries)

    def fits_each_step(self) -> bool:
        """Return whether every single step fits if the whole write does."""
        return self.peak_bytes <= max(0, self.grown_bytes) and self.peak_entries <= max(0, self.grown_entries)


@dataclass(slots=True)
class Plan:
    """The planned entries, and each step's record, or its error where steps are refused individually."""

    before: Mapping[str, Entry]
    after: dict[str, Entry]
    outcomes: list[str | KVStoreError] = field(default_factory=list)
    read_bytes: int = 0
    #: The last version given out for each key that is written.
    versions: dict[str, int] = field(default_factory=dict)

    @property
    def changed(self) -> dict[str, Entry]:
        """The entries to store."""
        return {k: e for k, e in self.after.items() if e.size_bytes > 0 and e != self.before[k]}

    @property
    def removed(self) -> list[str]:
        """The keys of the entries to remove if they exist."""
        return [key for key, entry in self.after.items() if entry.size_bytes == 0]

    @property
    def grown_bytes(self) -> int:
        """The bytes that the ledger grows by; negative if it shrinks."""
        return sum(entry.size_bytes - self.before[key].size_bytes for key, entry in self.after.items())

    @property
    def grown_entries(self) -> int:
        """The number of entries that the ledger grows by; negative if it shrinks."""
        return sum((e.size_bytes > 0) - (self.before[key].size_bytes > 0) for key, e in self.after.items())

    @property
    def grown_records(self) -> int:
        """The operation records that the ledger grows by: the write's own, and those that entries hold in reserve."""
        return 1 + sum(entry.reserve - self.before[key].reserve for key, entry in self.after.items())


@dataclass(frozen=True, slots=True)
class Planner:
    """Applies steps to the entries of a namespace as of ``now``.

    ``version`` is the lowest version that a key may end with if the plan writes it: the clock in microseconds,
    which is above every version given out before. So an entry that is deleted and created again never reuses a version.
    If a plan writes a key several times, each write gets its own version, and the last one gets at least this version.
    """

    namespace: str
    now: float
    version: int

    def plan(
        self, entries: Mapping[str, Entry], steps: Sequence[Step], room: Room | UnboundedRoom | None = None
    ) -> Plan:
        """Plan all steps. With ``room`` each is refused individually; without it the first refusal ends the plan.

        Raises:
            StepRefusedError: a step was refused, and ``room`` is None.
            QuotaRefusedError: expired entries must be purged first.
        """
        plan = Plan(entries, dict(entries))
        writes = Counter(step.key for step in steps if step.makes_version)
        for key, count in writes.items():
            plan.versions[key] = max(entries[key].version, self.version - count)
        for index, step in enumerate(steps):
            try:
                plan.outcomes.append(self._plan_step(step, plan, room))
            except KVStoreError as error:
                if room is None:
                    raise StepRefusedError(index, error) from error
                plan.outcomes.append(error)
        return plan

    def _plan_step(self, step: Step, plan: Plan, room: Room | UnboundedRoom | None) -> str:
        entry = plan.after[step.key]
        changed, record = self._apply(step, entry, plan.versions.get(step.key, 0) + 1)
        if room is not None:
            exists, existed = changed.size_bytes > 0, entry.size_bytes > 0
            room.charge(self.namespace, changed.size_bytes - entry.size_bytes, exists - existed)
        if step.action in {"get", "get_and_delete"}:
            plan.read_bytes += entry.size_bytes
        plan.after[step.key] = (
            replace(changed, reserve=_reserve(step, entry, changed)) if changed.size_bytes else changed
        )
        if changed.version > entry.version:
            plan.versions[step.key] = changed.version
        return record

    def _apply(self, step: Step, entry: Entry, version: int) -> tuple[Entry, str]:
        live = entry if entry.is_live(self.now) else None
        self._check_condition(step, live.version if live else None)
        if isinstance(step, ComputedStep):
            return self._compute(step, entry, live, version)
        if live is None and step.action in {"get", "touch", "persist"}:
            return entry, ""
        return self._apply_plain(step, entry, live, version)

    def _apply_plain(self, step: Step, entry: Entry, live: Entry | None, version: int) -> tuple[Entry, str]:
        if step.action == "set":
            return self._set(step, live, version)
        if step.action == "increment":
            return self._increment(step, live, version)
        if step.action == "delete":
            return Entry(), "true" if live else "false"
        if step.action == "get":
            return entry, read_entry_text(entry.text, entry.expires_at, entry.version)
        return self._touch(step, entry)

    def _check_condition(self, step: Step, actual_version: int | None) -> None:
        expected = step.expected_version
        if (expected is not None and actual_version != expected) or (step.if_absent and actual_version is not None):
            raise VersionConflictError(self.namespace, step.key, expected, actual_version)

    def _compute(self, step: ComputedStep, entry: Entry, live: Entry | None, version: int) -> tuple[Entry, str]:
        found = StoredEntry(live.text or "", live.expires_at, live.version) if live else None
        change = step.change(found, StepMoment(self.namespace, self.now, version))
        record = computed_record(change.answer)
        if change.removes:
            return Entry(), record
        if change.text is None:
            return entry, record
        return _written(change.text, change.expires_at, version)[0], record

    def _set(self, step: Step, live: Entry | None, version: int) -> tuple[Entry, str]:
        kept_expiry = live.expires_at if live and step.keep_ttl else None
        return _written(step.text, self._expiry(step, kept_expiry), version)

    def _increment(self, step: Step, counter: Entry | None, version: int) -> tuple[Entry, str]:
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

    def _touch(self, step: Step, entry: Entry) -> tuple[Entry, str]:
        changed = replace(entry, expires_at=self._expiry(step, None))
        return changed, written_record(changed.expires_at, changed.version)

    def _expiry(self, step: Step, default: float | None) -> float | None:
        return default if step.ttl_seconds is None else self.now + step.ttl_seconds


def _reserve(step: Step, entry: Entry, changed: Entry) -> int:
    if not isinstance(step, ComputedStep):
        return max(1, entry.reserve)
    return step.reserved_records(entry.reserve, is_written=changed is not entry)


def _written(text: str, expires_at: float | None, version: int) -> tuple[Entry, str]:
    return Entry(text, expires_at, len(text.encode()), version), written_record(expires_at, version)
