"""Each check of effects finds its violation, and none in a correct history."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.effects.history import Call, Effect, Histories, Journal, Outcome, Recorded, Settlement
from tests.chaos.effects.verdict import violations

KEY = "order 1"


def effect(token: int = 1, at: float = 0.5, **given: Any) -> Effect:
    return replace(Effect(KEY, token, "990", f"receipt {token}", at), **given)


def call(outcome: Outcome = Outcome.RETURNED, began: float = 0.0, **given: Any) -> Call:
    receipt = "receipt 1" if outcome.is_final else ""
    made = Call("c0", KEY, "decorator", "990", began, began + 1.0, outcome, receipt)
    return replace(made, **given)


def settled(token: int = 1, at: float = 2.0, *, happened: bool = False) -> Settlement:
    return Settlement(KEY, token, happened, at)


def recorded(state: str = "done", token: int = 1, receipt: str = "receipt 1") -> Recorded:
    return Recorded(KEY, state, token, receipt)


def history(*events: Effect | Call | Settlement | Recorded) -> Histories:
    return Histories(
        tuple(event for event in events if isinstance(event, Effect)),
        tuple(event for event in events if isinstance(event, Call)),
        tuple(event for event in events if isinstance(event, Settlement)),
        tuple(event for event in events if isinstance(event, Recorded)),
    )


SECOND = (effect(2, at=3.0), call(began=2.5, receipt="receipt 2"), recorded(token=2, receipt="receipt 2"))
STUCK = recorded("reserved", receipt="")

CORRECT: dict[str, Histories] = {
    "nothing": history(),
    "once": history(effect(), call(), recorded()),
    "returned again": history(effect(), call(), call(began=2.0, caller="c1"), recorded()),
    "failed, and failed again": history(
        effect(), call(Outcome.FAILED), call(Outcome.FAILED, began=2.0), recorded("failed")
    ),
    "killed after the effect, and reported": history(effect(), call(Outcome.OPEN), call(Outcome.UNKNOWN, 2.0), STUCK),
    "killed before the effect, and reported": history(call(Outcome.OPEN), call(Outcome.UNKNOWN, 2.0), STUCK),
    "killed before the effect, and settled": history(call(Outcome.OPEN), settled(), *SECOND),
    "killed after the effect, and settled": history(
        effect(), call(Outcome.OPEN), settled(happened=True), call(began=2.5), recorded(token=2)
    ),
    "frozen, settled, and late": history(effect(at=9.0), call(Outcome.LOST), settled(), *SECOND),
    "settled wrongly": history(effect(), call(Outcome.OPEN), settled(), *SECOND),
    "settled, killed again, settled, and late": history(
        effect(at=9.0),
        call(Outcome.LOST),
        settled(2),
        effect(3, at=4.0),
        call(began=2.5, receipt="receipt 3"),
        recorded(token=3, receipt="receipt 3"),
    ),
    "settled, forgotten and late": history(effect(at=9.0), call(Outcome.UNKNOWN), settled()),
    "waited too long": history(effect(), call(Outcome.IN_PROGRESS), call(), recorded()),
    "other arguments": history(effect(), call(), call(Outcome.CONFLICT, 0.5, arguments="991"), recorded()),
    "unavailable, and then known": history(effect(), call(Outcome.UNAVAILABLE), call(began=2.0), recorded()),
}

TWICE = (effect(), replace(effect(at=0.6), receipt="receipt 2"), call(), recorded())
UNSETTLED = (effect(), call(Outcome.OPEN))
OTHER_OUTCOME = (effect(), settled(), effect(2, at=3.0), recorded(token=2))

#: Each history breaks one check alone.
WRONG: dict[str, tuple[Histories, str]] = {
    "an attempt with two effects": (history(*TWICE), "made two effects"),
    "an attempt of a lost lease that another followed": (history(*UNSETTLED, *SECOND), "was not settled between"),
    "settled as happened, and repeated": (
        history(*UNSETTLED, settled(happened=True), *SECOND),
        "was not settled between",
    ),
    "settled after the second effect": (history(*UNSETTLED, settled(at=3.5), *SECOND), "was not settled between"),
    "another attempt settled": (history(*UNSETTLED, settled(7), *SECOND), "was not settled between"),
    "a result without effect": (
        history(effect(), call(receipt="receipt 9"), recorded(receipt="receipt 9")),
        "is no such effect",
    ),
    "a failure without effect": (
        history(call(Outcome.FAILED, receipt=""), recorded("failed", receipt="")),
        "is no such effect",
    ),
    "a record without effect": (history(call(Outcome.UNKNOWN), recorded()), "is recorded as done"),
    "two results": (
        history(*OTHER_OUTCOME, call(), call(began=4.0, receipt="receipt 2")),
        "has several outcomes",
    ),
    "another result than the recorded one": (
        history(*OTHER_OUTCOME, call(began=4.0, receipt="receipt 2")),
        "has several outcomes",
    ),
    "a late result": (history(effect(), settled(), effect(2, at=3.0), call(), recorded()), "had taken over"),
    "returned, though it failed": (history(effect(), call(), recorded("failed")), "has several outcomes"),
    "returned, and not recorded": (history(effect(), call(), STUCK), "the store does not hold"),
    "killed, and not reported": (history(effect(), call(Outcome.OPEN), STUCK), "neither known nor reported"),
    "in progress for ever": (history(effect(), call(Outcome.IN_PROGRESS), STUCK), "neither known nor reported"),
    "an effect without a call": (history(effect(), recorded()), "neither known nor reported"),
    "reported, and forgotten": (history(effect(), call(Outcome.UNKNOWN)), "has forgotten its step"),
    "effects of two arguments": (
        history(effect(), call(Outcome.OPEN), settled(), effect(2, 3.0, arguments="991"), *SECOND[1:]),
        "effects with several arguments",
    ),
    "the result of other arguments": (
        history(effect(), call(), call(began=2.0, arguments="991"), recorded()),
        "the outcome of other arguments",
    ),
    "an error that nothing explains": (
        history(effect(), call(Outcome.DEFECT, detail="KeyError"), call(began=2.0), recorded()),
        "nothing explains: KeyError",
    ),
}


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_history_has_no_violation(name: str) -> None:
    assert violations(CORRECT[name]) == []


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_history_has_the_violation_alone(name: str) -> None:
    histories, problem = WRONG[name]
    found = violations(histories)
    assert found
    assert all(problem in each for each in found), found


def test_journals_return_what_their_processes_have_written(tmp_path: Path) -> None:
    paths = [tmp_path / "c0", tmp_path / "c1"]
    first, second = map(Journal, paths)
    first.add(call(Outcome.OPEN, ended=float("inf")))
    first.add(call())
    second.add(call(Outcome.OPEN, caller="c1"))
    second.add(settled())
    read = Histories.read(paths, [effect()], [recorded()])
    assert read == history(effect(), call(), call(Outcome.OPEN, caller="c1"), settled(), recorded())
