"""Plans of steps whose effect Python decides."""

from __future__ import annotations

import pytest

from kvworker.adapters.sql.planning import Entry, Planner
from kvworker.model import StepBegin, StoredStep, encode_value

NOW = 1_800_000_000.0
VERSION = int(NOW * 1e6)
RESERVED = StoredStep.reserved(1, "a", None, NOW + 60).text
DONE = encode_value({"$step": 1, "state": "done", "token": 1, "value": "mailed"})


@pytest.mark.parametrize(("text", "reserve"), [(RESERVED, 2), (DONE, 1)])
def test_a_begin_that_only_answers_writes_no_entry(text: str, reserve: int) -> None:
    entry = Entry(text, None, len(text), 1, reserve)
    plan = Planner("n", NOW, VERSION).plan({"k": entry}, [StepBegin("step_begin", "k", holder="b")])
    assert plan.changed == {}
    assert plan.removed == []
    assert plan.grown_records == 1


def test_a_begin_holds_a_record_in_reserve_for_the_end() -> None:
    plan = Planner("n", NOW, VERSION).plan({"k": Entry()}, [StepBegin("step_begin", "k")])
    assert plan.changed["k"].reserve == 2
    assert plan.grown_records == 3
