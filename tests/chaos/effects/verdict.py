"""The verdict on effects: what must hold between the recorder, the callers and the store, as pure checks.

Attempts of a key are ordered by their fencing tokens and not by time: a holder that was frozen may still make its
effect long after it lost its lease, if the world outside does not check the token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from tests.chaos.effects.history import Call, Effect, Histories, Outcome, Recorded, Settlement

#: The states of a step that has ended, with the outcome that its calls must have.
_ENDED: Mapping[str, Outcome] = {"done": Outcome.RETURNED, "failed": Outcome.FAILED}

_Event = TypeVar("_Event", Call, Effect, Settlement)


@dataclass(frozen=True)
class Evidence:
    """The histories, by key."""

    histories: Histories

    @cached_property
    def effects(self) -> Mapping[str, Sequence[Effect]]:
        """The effects of each key in the order of their tokens."""
        return _by_key(sorted(self.histories.effects, key=lambda effect: (effect.token, effect.at)))

    @cached_property
    def calls(self) -> Mapping[str, Sequence[Call]]:
        """The calls of each key in the order of their beginnings."""
        return _by_key(sorted(self.histories.calls, key=lambda call: call.began))

    @cached_property
    def recorded(self) -> Mapping[str, Recorded]:
        """The steps in the store by key."""
        return {recorded.key: recorded for recorded in self.histories.recorded}

    def receipts(self, key: str) -> set[str]:
        """The receipts of a key's effects."""
        return {effect.receipt for effect in self.effects.get(key, ())}


def repeated_attempts(evidence: Evidence) -> Iterator[str]:
    """One attempt makes one effect."""
    for key, effects in evidence.effects.items():
        for first, second in pairwise(effects):
            if first.token == second.token:
                yield f"the attempt {first.token} of {key!r} made two effects"


def unsettled_repeats(evidence: Evidence) -> Iterator[str]:
    """Between two effects of a key, somebody looked and answered that the effect had not happened."""
    for key, effects in evidence.effects.items():
        for first, second in pairwise(effects):
            is_settled = any(
                first.token <= each.token < second.token and each.at <= second.at
                for each in evidence.histories.settlements
                if each.key == key and not each.happened
            )
            if first.token < second.token and not is_settled:
                yield f"{key!r} has two effects, and the attempt {first.token} was not settled between them"


def outcomes_without_effect(evidence: Evidence) -> Iterator[str]:
    """An outcome that a caller was told, or that the store holds, is the receipt of an effect."""
    for key, calls in evidence.calls.items():
        for call in calls:
            if call.outcome.is_final and call.receipt not in evidence.receipts(key):
                yield f"the {call.name} was told {call.receipt!r}, and there is no such effect"
    for key, recorded in evidence.recorded.items():
        if recorded.state in _ENDED and recorded.receipt not in evidence.receipts(key):
            yield f"{key!r} is recorded as {recorded.state} with {recorded.receipt!r}, and there is no such effect"


def differing_outcomes(evidence: Evidence) -> Iterator[str]:
    """All callers of a key are told the same outcome, and it is the recorded one."""
    for key, calls in evidence.calls.items():
        told = {(call.outcome, call.receipt) for call in calls if call.outcome.is_final}
        recorded = evidence.recorded.get(key)
        if recorded and recorded.state in _ENDED:
            told.add((_ENDED[recorded.state], recorded.receipt))
        elif told:
            yield f"callers of {key!r} were told an outcome that the store does not hold"
        if len(told) > 1:
            yield f"{key!r} has several outcomes: {', '.join(sorted(map(' '.join, told)))}"


def late_outcomes(evidence: Evidence) -> Iterator[str]:
    """The outcome that the store holds is the one of the last attempt: a holder that lost its lease is refused."""
    for key, effects in evidence.effects.items():
        recorded = evidence.recorded.get(key)
        if recorded and recorded.state in _ENDED and recorded.token < effects[-1].token:
            yield f"{key!r} holds the outcome of attempt {recorded.token}, which {effects[-1].token} had taken over"


def unreported_unknowns(evidence: Evidence) -> Iterator[str]:
    """The last call of each key knows the outcome, or was told that it is unknown."""
    for key in sorted({*evidence.effects, *evidence.recorded, *evidence.calls}):
        outcomes = [call.outcome for call in evidence.calls.get(key, ()) if call.outcome is not Outcome.CONFLICT]
        last = outcomes[-1] if outcomes else Outcome.OPEN
        if not last.is_final and last is not Outcome.UNKNOWN:
            yield f"{key!r} is neither known nor reported as unknown: its last call ended {last}"


def forgotten_effects(evidence: Evidence) -> Iterator[str]:
    """The store still has the step of each effect, unless its attempt was settled as one that did not happen."""
    released = {(each.key, each.token) for each in evidence.histories.settlements if not each.happened}
    for key, effects in evidence.effects.items():
        if key not in evidence.recorded and any((key, effect.token) not in released for effect in effects):
            yield f"{key!r} has an effect, and the store has forgotten its step"


def ignored_conflicts(evidence: Evidence) -> Iterator[str]:
    """A key belongs to the arguments of its first call. No other arguments have an effect or a result."""
    for key, effects in evidence.effects.items():
        arguments = {effect.arguments for effect in effects}
        if len(arguments) > 1:
            yield f"{key!r} has effects with several arguments: {', '.join(sorted(arguments))}"
        for call in evidence.calls.get(key, ()):
            if call.outcome.is_final and call.arguments not in arguments:
                yield f"the {call.name} was told the outcome of other arguments"


def unexplained_errors(evidence: Evidence) -> Iterator[str]:
    """Nothing fails but by the faults."""
    for call in evidence.histories.calls:
        if call.outcome is Outcome.DEFECT:
            yield f"the {call.name} raised an error that nothing explains: {call.detail}"


CHECKS: tuple[Callable[[Evidence], Iterator[str]], ...] = (
    repeated_attempts,
    unsettled_repeats,
    outcomes_without_effect,
    differing_outcomes,
    late_outcomes,
    unreported_unknowns,
    forgotten_effects,
    ignored_conflicts,
    unexplained_errors,
)


def violations(histories: Histories) -> list[str]:
    """Run all checks and describe each violation; the list is empty if everything holds."""
    evidence = Evidence(histories)
    return [problem for check in CHECKS for problem in check(evidence)]


def _by_key(events: Iterable[_Event]) -> dict[str, list[_Event]]:
    found: dict[str, list[_Event]] = defaultdict(list)
    for event in events:
        found[event.key].append(event)
    return dict(found)
