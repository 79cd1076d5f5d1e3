"""Checks of the final entries and ledgers against the acknowledged writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.chaos.evidence import Effect, Entry, Evidence, Ledger, Moment, Name


def unrequested_entries(evidence: Evidence) -> Iterator[str]:
    """Every entry was requested by a caller."""
    for namespace, key in sorted(set(evidence.snapshot.entries) - set(evidence.effects)):
        yield f"an entry that no caller asked for: {key!r} in {namespace!r}"


def counters(evidence: Evidence) -> Iterator[str]:
    """A counter is the sum of the acknowledged increments, and the answers form an unbroken chain of values."""
    for name, effects in evidence.effects.items():
        if all(effect.step.action != "add" for effect in effects):
            continue
        applied = evidence.applied(name, "add")
        expected = sum(effect.step.value for effect in applied)
        entry = evidence.snapshot.entries.get(name)
        found = entry.value if entry else 0
        if found != expected:
            yield f"counter {name[1]!r} in {name[0]!r} is {found}, the acknowledged increments sum up to {expected}"
        yield from _broken_chain(name, applied)


def _broken_chain(name: Name, applied: Sequence[Effect]) -> Iterator[str]:
    changes = [(effect.answer.value, effect.step.value, effect) for effect in applied if effect.answer]
    value = 0
    for after, delta, effect in sorted(changes, key=lambda change: (change[0], change[1])):
        if after - delta != value:
            yield (
                f"counter {name[1]!r} in {name[0]!r} became {after} by adding {delta}, but it was {value} before:"
                f" {effect.operation.first.name}"
            )
        value = after


def puts(evidence: Evidence) -> Iterator[str]:
    """An entry holds the last value put: no acknowledged write is lost, and no removed or refused one exists."""
    for name in evidence.effects:
        applied = evidence.applied(name, "put")
        entry = evidence.snapshot.entries.get(name)
        if any(effect.step.action == "put" for effect in evidence.effects[name]):
            yield from (
                _missing_entry(evidence, name, applied)
                if entry is None
                else _wrong_entry(evidence, name, entry, applied)
            )


def _missing_entry(evidence: Evidence, name: Name, applied: Sequence[Effect]) -> Iterator[str]:
    removals = evidence.applied(name, "remove")
    for effect in applied:
        if effect.step.ttl_seconds is None and all(removal.ended <= effect.began for removal in removals):
            yield f"an acknowledged write is gone: {effect.operation.first.name}"


def _wrong_entry(evidence: Evidence, name: Name, entry: Entry, applied: Sequence[Effect]) -> Iterator[str]:
    where = f"{name[1]!r} in {name[0]!r}"
    if all(effect.step.value != entry.value for effect in applied):
        yield f"{where} holds a value whose write was never acknowledged: {entry.text[:80]}"
    newest = max((effect.answer.version or 0 for effect in applied if effect.answer), default=0)
    if newest > entry.version:
        yield f"{where} is at version {entry.version}, but version {newest} was acknowledged"
    for removal in evidence.applied(name, "remove"):
        if all(effect.ended <= removal.began for effect in applied):
            yield f"{where} exists, though it was removed after its last write: {removal.operation.first.name}"


def ledgers(evidence: Evidence) -> Iterator[str]:
    """Ledgers are exact and within their quotas, and the recorded size of an entry is the size of its text."""
    yield from moment_violations(evidence.snapshot.moment())
    for (namespace, key), entry in evidence.snapshot.entries.items():
        if entry.size_bytes != len(entry.text.encode()):
            yield f"{key!r} in {namespace!r} is {len(entry.text.encode())} bytes, but counted as {entry.size_bytes}"


def moment_violations(moment: Moment) -> Iterator[str]:
    """Check one transaction's view: ledgers are exact, quotas are kept, and twin counters are equal."""
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
