"""Checks that only some scenarios of durable steps need, among them that a fault had the intended effect."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.effects.history import Histories, Outcome


def some_step_becomes_unknown(histories: Histories) -> Iterator[str]:
    """The fault leaves steps whose effects may have happened or not."""
    if not histories.settlements and not any(call.outcome is Outcome.UNKNOWN for call in histories.calls):
        yield "no step became unknown, so the fault showed nothing"


def no_call_fails(histories: Histories) -> Iterator[str]:
    """The fault leaves nothing unknown: each call ends, and is told an outcome."""
    failed = [
        call
        for call in histories.calls
        if call.outcome not in {Outcome.RETURNED, Outcome.FAILED, Outcome.CONFLICT, Outcome.IN_PROGRESS}
    ]
    if failed:
        first = failed[0]
        yield f"{len(failed)} calls failed; the first: {first.outcome} ({first.detail}): the {first.name}"
    if histories.settlements:
        yield f"{len(histories.settlements)} steps became unknown, though no holder was disturbed"
