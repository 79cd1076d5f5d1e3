"""Checks of the values that callers read."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from tests.chaos.evidence import Effect, Evidence, Name
from tests.chaos.history import Call, Outcome

#: The tolerance of the TTL checks, because the clocks of callers and database are not compared.
TTL_GRACE_SECONDS = 0.25


def own_reads(evidence: Evidence) -> Iterator[str]:
    """A caller reads its own last write from a key that no other caller writes."""
    callers: dict[str, list[Call]] = defaultdict(list)
    for call in evidence.calls:
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
                        f"a read returned {_short(answer.value)}, its caller's last acknowledged write was"
                        f" {_short(written.get(name))}: {call.name}"
                    )
        elif call.outcome.is_success:
            written.update(
                (name, step.value if step.action == "put" else None)
                for name, step in zip(names, call.steps, strict=True)
                if step.action in {"put", "remove"}
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:60]}..."


def expiring_reads(evidence: Evidence) -> Iterator[str]:
    """An entry with a TTL exists until the TTL has passed, and not afterwards."""
    for call in evidence.calls:
        if call.kind != "read expiring" or call.outcome is not Outcome.READ:
            continue
        for effect in evidence.applied((call.namespace, call.steps[0].key), "put"):
            ttl_seconds, found = effect.step.ttl_seconds or 0.0, call.answers[0].value
            if found is None and call.ended < effect.began + ttl_seconds - TTL_GRACE_SECONDS:
                yield f"an entry is gone before its TTL of {ttl_seconds:.2f} s: {call.name}"
            if found is not None and call.began > effect.ended + ttl_seconds + TTL_GRACE_SECONDS:
                yield f"an entry is read after its TTL of {ttl_seconds:.2f} s: {call.name}"


def counter_reads(evidence: Evidence) -> Iterator[str]:
    """A counter's value lies between the increments acknowledged before the read and those requested until then."""
    bounds: dict[Name, _Bounds] = {}
    for call in evidence.calls:
        if call.kind != "read counter" or call.outcome is not Outcome.READ:
            continue
        name = call.namespace, call.steps[0].key
        if name not in bounds:
            bounds[name] = _Bounds([effect for effect in evidence.effects[name] if effect.step.action == "add"])
        least, most = bounds[name].at(call)
        found = call.answers[0].value or 0
        if not least <= found <= most:
            yield f"a counter was read as {found}, but must have been between {least} and {most}: {call.name}"


class _Bounds:
    """The lowest and the highest value that a counter can have had at a time."""

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


def twin_reads(evidence: Evidence) -> Iterator[str]:
    """Twin counters, which only atomic batches change by the same amount, are always equal."""
    for call in evidence.calls:
        if call.kind == "read twins" and call.outcome is Outcome.READ:
            values = [answer.value for answer in call.answers]
            if len(set(values)) > 1:
                yield f"twin counters were read as {values}: {call.name}"
    for namespace, ends in _twins(evidence).items():
        if len(ends) > 1:
            yield f"twin counters of {namespace!r} ended as {sorted(ends)}"


def _twins(evidence: Evidence) -> Mapping[str, set[int]]:
    values: dict[str, set[int]] = defaultdict(set)
    for operation in evidence.operations:
        if operation.first.kind == "twins":
            for step in operation.first.steps:
                entry = evidence.snapshot.entries.get((operation.first.namespace, step.key))
                values[operation.first.namespace].add(entry.value if entry else 0)
    return values
