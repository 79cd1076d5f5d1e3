"""What must hold between the callers' history and the database, as pure checks that give violations in plain words."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, TypeAlias

from tests.chaos.history import UNKNOWNS, Answer, Call, Operation, Outcome, Step, operations_of

#: How much longer than its timeout a call may take.
GRACE_SECONDS = 1.0
#: How much earlier or later than a TTL says a caller may find an entry gone or there: clocks are not compared.
TTL_GRACE_SECONDS = 0.25

#: The refusals that the load provokes, by kind; any other is a violation.
_REFUSALS: Mapping[str, frozenset[str]] = {
    "swap": frozenset({"VersionConflictError"}),
    "claim": frozenset({"VersionConflictError"}),
    "crowd": frozenset({"NamespaceQuotaExceededError"}),
}
_OF_FAULTS = frozenset(
    {error.__name__ for error in UNKNOWNS} | {"QueueUnavailableError", "OperationNotSentError", "OperationExpiredError"}
)

Name: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of an entry: ``text`` is its value as stored."""

    text: str
    size_bytes: int
    version: int
    expires: bool = False

    @property
    def value(self) -> Any:
        """The value."""
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Ledger:
    """A namespace's ledger, all its slots together; ``quota_bytes`` is the namespace's own."""

    used_bytes: int
    entry_count: int
    quota_bytes: int | None = None


@dataclass(frozen=True)
class Moment:
    """What one transaction saw: ledgers, what the entries sum up to (bytes, rows), and the twin counters."""

    ledgers: Mapping[str, Ledger]
    stored: Mapping[str, tuple[int, int]]
    twins: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """What the database held in the end, seen by one transaction."""

    entries: Mapping[Name, Entry] = field(default_factory=dict)
    ledgers: Mapping[str, Ledger] = field(default_factory=dict)
    records: frozenset[Name] = frozenset()

    def moment(self) -> Moment:
        """The same as an observer would see it."""
        stored: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for (namespace, _), entry in self.entries.items():
            size_bytes, rows = stored[namespace]
            stored[namespace] = size_bytes + entry.size_bytes, rows + 1
        return Moment(self.ledgers, dict(stored))


@dataclass(frozen=True, slots=True)
class Effect:
    """A step of a write: it was applied, if it was, between ``began`` and ``ended``."""

    operation: Operation
    step: Step
    answer: Answer | None

    @property
    def began(self) -> float:
        """Not earlier."""
        return self.operation.first.began

    @property
    def ended(self) -> float:
        """Not later, for one that was acknowledged."""
        return (self.operation.success or self.operation.tries[-1]).ended

    @property
    def is_applied(self) -> bool:
        """Whether its caller was told so."""
        return self.operation.success is not None


@dataclass(frozen=True)
class Case:
    """A history and what the database held afterwards."""

    calls: Sequence[Call]
    snapshot: Snapshot

    @cached_property
    def operations(self) -> list[Operation]:
        """The writes."""
        return operations_of(self.calls)

    @cached_property
    def effects(self) -> Mapping[Name, list[Effect]]:
        """What was asked of each key."""
        found: dict[Name, list[Effect]] = defaultdict(list)
        for operation in self.operations:
            answers = operation.success.answers if operation.success else ()
            for index, step in enumerate(operation.first.steps):
                answer = answers[index] if index < len(answers) else None
                found[operation.first.namespace, step.key].append(Effect(operation, step, answer))
        return found

    def applied(self, name: Name, action: str) -> list[Effect]:
        """The acknowledged effects of a kind on a key."""
        return [effect for effect in self.effects[name] if effect.step.action == action and effect.is_applied]


def violations(calls: Sequence[Call], snapshot: Snapshot) -> list[str]:
    """Everything that does not hold, in words; empty if all is well."""
    case = Case(calls, snapshot)
    return [problem for check in CHECKS for problem in check(case)]


def moment_violations(moment: Moment) -> Iterator[str]:
    """What does not hold within one transaction's view: exact ledgers, kept quotas, equal twins."""
    for namespace in sorted({*moment.ledgers, *moment.stored}):
        ledger = moment.ledgers.get(namespace, Ledger(0, 0))
        stored = moment.stored.get(namespace, (0, 0))
        if (ledger.used_bytes, ledger.entry_count) != stored:
            yield (
                f"the ledger of {namespace!r} says {ledger.used_bytes} bytes in {ledger.entry_count} entries,"
                f" its entries have {stored[0]} in {stored[1]}"
            )
        if ledger.quota_bytes is not None and stored[0] > ledger.quota_bytes:
            yield f"{namespace!r} holds {stored[0]} bytes, more than its quota of {ledger.quota_bytes}"
    for namespace, values in moment.twins.items():
        if len(set(values)) > 1:
            yield f"the twin counters of {namespace!r} differ in one snapshot: {values}"


def late_calls(case: Case) -> Iterator[str]:
    """Calls that outlived their timeout."""
    for call in case.calls:
        if call.took_seconds > call.timeout_seconds + GRACE_SECONDS:
            yield (
                f"a call outlived its timeout of {call.timeout_seconds:.2f} s: {call.took_seconds:.2f} s,"
                f" {call.outcome} {call.error}: {call.name}"
            )


def strange_errors(case: Case) -> Iterator[str]:
    """Errors that no fault and no refusal explains."""
    for call in case.calls:
        if call.error and call.error not in _OF_FAULTS | _REFUSALS.get(call.kind, frozenset()):
            yield f"an error that nothing explains: {call.error}: {call.detail}: {call.name}"


def unsettled(case: Case) -> Iterator[str]:
    """Operations of which their callers never learned what became."""
    for operation in case.operations:
        if operation.outcome is Outcome.UNKNOWN:
            last = operation.tries[-1]
            yield (
                f"still unknown after {len(operation.tries)} tries, the last {last.outcome} by {last.error}"
                f" ({last.detail}): {last.name}"
            )


def records(case: Case) -> Iterator[str]:
    """An acknowledged write has its record, another one has none, and there is no record of anything else."""
    asked: set[Name] = set()
    for operation in case.operations:
        name = operation.first.namespace, operation.first.operation_id
        asked.add(name)
        is_there = name in case.snapshot.records
        if operation.success and not is_there:
            yield f"acknowledged as {operation.outcome}, but there is no record of it: {operation.first.name}"
        if is_there and not operation.success and operation.outcome is not Outcome.UNKNOWN:
            tries = ", ".join(f"{call.outcome} ({call.error})" for call in operation.tries)
            yield f"reported as {operation.outcome}, but it was applied; its tries: {tries}: {operation.first.name}"
    for namespace, operation_id in sorted(case.snapshot.records - asked):
        yield f"a record of an operation that no caller asked for: {operation_id!r} in {namespace!r}"


def strays(case: Case) -> Iterator[str]:
    """Entries that no caller asked for."""
    for namespace, key in sorted(set(case.snapshot.entries) - set(case.effects)):
        yield f"an entry that no caller asked for: {key!r} in {namespace!r}"


def applied_twice(case: Case) -> Iterator[str]:
    """Operations of which two tries say that they did it."""
    for operation in case.operations:
        times = [call.outcome for call in operation.tries].count(Outcome.APPLIED)
        if times > 1:
            yield f"{times} tries say that they applied it: {operation.first.name}"


def counters(case: Case) -> Iterator[str]:
    """A counter is the sum of what was acknowledged, and went from each answered value to the next."""
    for name, effects in case.effects.items():
        if all(effect.step.action != "add" for effect in effects):
            continue
        applied = case.applied(name, "add")
        expected = sum(effect.step.value for effect in applied)
        entry = case.snapshot.entries.get(name)
        found = entry.value if entry else 0
        if found != expected:
            yield f"counter {name[1]!r} in {name[0]!r} is {found}, the acknowledged increments sum up to {expected}"
        yield from _broken_chain(name, applied)


def _broken_chain(name: Name, applied: Sequence[Effect]) -> Iterator[str]:
    links = [(effect.answer.value, effect.step.value, effect) for effect in applied if effect.answer]
    value = 0
    for after, delta, effect in sorted(links, key=lambda link: (link[0], link[1])):
        if after - delta != value:
            yield (
                f"counter {name[1]!r} in {name[0]!r} became {after} by adding {delta}, but it was {value} before:"
                f" {effect.operation.first.name}"
            )
        value = after


def puts(case: Case) -> Iterator[str]:
    """An entry is what was put last; nothing acknowledged is lost, nothing removed or refused is there."""
    for name in case.effects:
        applied = case.applied(name, "put")
        entry = case.snapshot.entries.get(name)
        if any(effect.step.action == "put" for effect in case.effects[name]):
            yield from _missing(case, name, applied) if entry is None else _wrong(case, name, entry, applied)


def _missing(case: Case, name: Name, applied: Sequence[Effect]) -> Iterator[str]:
    removals = case.applied(name, "remove")
    for effect in applied:
        if effect.step.ttl_seconds is None and all(removal.ended <= effect.began for removal in removals):
            yield f"an acknowledged write is gone: {effect.operation.first.name}"


def _wrong(case: Case, name: Name, entry: Entry, applied: Sequence[Effect]) -> Iterator[str]:
    where = f"{name[1]!r} in {name[0]!r}"
    if all(effect.step.value != entry.value for effect in applied):
        yield f"{where} holds a value whose write was never acknowledged: {entry.text[:80]}"
    newest = max((effect.answer.version or 0 for effect in applied if effect.answer), default=0)
    if newest > entry.version:
        yield f"{where} is at version {entry.version}, but version {newest} was acknowledged"
    for removal in case.applied(name, "remove"):
        if all(effect.ended <= removal.began for effect in applied):
            yield f"{where} is there, though it was removed after its last write: {removal.operation.first.name}"


def claims(case: Case) -> Iterator[str]:
    """Of those who claim a name one wins, unless none was even heard."""
    claimed: dict[Name, list[Operation]] = defaultdict(list)
    for operation in case.operations:
        if operation.first.kind == "claim":
            claimed[operation.first.namespace, operation.first.steps[0].key].append(operation)
    for (namespace, key), operations in claimed.items():
        winners = [operation.first.caller for operation in operations if operation.success]
        if len(winners) > 1:
            yield f"{len(winners)} callers won {key!r} in {namespace!r}: {', '.join(winners)}"
        if not winners and any(operation.outcome is Outcome.REFUSED for operation in operations):
            yield f"nobody won {key!r} in {namespace!r}, yet a claim was refused"


def deletes(case: Case) -> Iterator[str]:
    """A delete finds what its caller has put there."""
    for operation in case.operations:
        if operation.first.kind == "delete" and operation.success and operation.success.answers[0].value is not True:
            yield f"a delete did not find what was there: {operation.first.name}"


def own_reads(case: Case) -> Iterator[str]:
    """A caller reads what it wrote last to a key that only it writes."""
    callers: dict[str, list[Call]] = defaultdict(list)
    for call in case.calls:
        callers[call.caller].append(call)
    for calls in callers.values():
        yield from _stale_reads(sorted(calls, key=lambda call: call.began))


def _stale_reads(calls: Sequence[Call]) -> Iterator[str]:
    written: dict[Name, Any] = {}
    for call in calls:
        names = [(call.namespace, step.key) for step in call.steps]
        if call.kind == "read own" and call.outcome is Outcome.READ:
            for name, answer in zip(names, call.answers, strict=True):
                if answer.value != written.get(name):
                    yield (
                        f"a read gave {_short(answer.value)}, its caller's last acknowledged write was"
                        f" {_short(written.get(name))}: {call.name}"
                    )
        elif call.outcome.is_success:
            written.update(
                (name, step.value if step.action == "put" else None)
                for name, step in zip(names, call.steps, strict=True)
                if step.action in {"put", "remove"}
            )


def fleeting_reads(case: Case) -> Iterator[str]:
    """An entry with a TTL is there before it has passed, and is not afterwards."""
    for call in case.calls:
        if call.kind != "read fleeting" or call.outcome is not Outcome.READ:
            continue
        for effect in case.applied((call.namespace, call.steps[0].key), "put"):
            ttl_seconds, found = effect.step.ttl_seconds or 0.0, call.answers[0].value
            if found is None and call.ended < effect.began + ttl_seconds - TTL_GRACE_SECONDS:
                yield f"an entry is gone before its TTL of {ttl_seconds:.2f} s: {call.name}"
            if found is not None and call.began > effect.ended + ttl_seconds + TTL_GRACE_SECONDS:
                yield f"an entry is read after its TTL of {ttl_seconds:.2f} s: {call.name}"


def counter_reads(case: Case) -> Iterator[str]:
    """A counter holds at least what was acknowledged before it is read, and at most what was asked until then."""
    bounds: dict[Name, _Bounds] = {}
    for call in case.calls:
        if call.kind != "read counter" or call.outcome is not Outcome.READ:
            continue
        name = call.namespace, call.steps[0].key
        if name not in bounds:
            bounds[name] = _Bounds([effect for effect in case.effects[name] if effect.step.action == "add"])
        least, most = bounds[name].at(call)
        found = call.answers[0].value or 0
        if not least <= found <= most:
            yield f"a counter was read as {found}, but must have been between {least} and {most}: {call.name}"


class _Bounds:
    """The least and the most that a counter can have been at a time."""

    def __init__(self, adds: Sequence[Effect]) -> None:
        ends = sorted((add.ended, add.step.value) for add in adds if add.is_applied)
        begins = sorted(
            (add.began, add.step.value) for add in adds if add.is_applied or add.operation.outcome is Outcome.UNKNOWN
        )
        self._ends, self._begins = [end for end, _ in ends], [begin for begin, _ in begins]
        self._ended = [0, *accumulate(value for _, value in ends)]
        self._begun = [0, *accumulate(value for _, value in begins)]

    def at(self, call: Call) -> tuple[int, int]:
        least = self._ended[bisect_left(self._ends, call.began)]
        return least, self._begun[bisect_right(self._begins, call.ended)]


def twin_reads(case: Case) -> Iterator[str]:
    """Counters that only atomic batches change, by the same amount, are read as equal."""
    for call in case.calls:
        if call.kind == "read twins" and call.outcome is Outcome.READ:
            values = [answer.value for answer in call.answers]
            if len(set(values)) > 1:
                yield f"twin counters were read as {values}: {call.name}"
    for namespace, ends in _twins(case).items():
        if len(ends) > 1:
            yield f"twin counters of {namespace!r} ended as {sorted(ends)}"


def _twins(case: Case) -> Mapping[str, set[int]]:
    values: dict[str, set[int]] = defaultdict(set)
    for operation in case.operations:
        if operation.first.kind == "twins":
            for step in operation.first.steps:
                entry = case.snapshot.entries.get((operation.first.namespace, step.key))
                values[operation.first.namespace].add(entry.value if entry else 0)
    return values


def ledgers(case: Case) -> Iterator[str]:
    """Ledgers are exact and within their quotas, and each entry's size is its text's."""
    yield from moment_violations(case.snapshot.moment())
    for (namespace, key), entry in case.snapshot.entries.items():
        if entry.size_bytes != len(entry.text.encode()):
            yield f"{key!r} in {namespace!r} is {len(entry.text.encode())} bytes, but counted as {entry.size_bytes}"


CHECKS: tuple[Callable[[Case], Iterator[str]], ...] = (
    late_calls,
    strange_errors,
    unsettled,
    records,
    strays,
    applied_twice,
    counters,
    puts,
    claims,
    deletes,
    own_reads,
    fleeting_reads,
    counter_reads,
    twin_reads,
    ledgers,
)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:60]}..."
