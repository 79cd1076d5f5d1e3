"""Durable steps without a database: every state meets every operation, and a lost holder changes nothing."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from kvworker.errors import (
    InvalidRequestError,
    InvalidValueTypeError,
    KVStoreError,
    StepConflictError,
    StepLostError,
    ValueSerializationError,
)
from kvworker.model import (
    Change,
    ComputedStep,
    EncodedValue,
    GetResult,
    JSONValue,
    StepBegin,
    StepFinish,
    StepMoment,
    StepRenew,
    StoredEntry,
    StoredStep,
    arguments_digest,
    decode_value,
    encode_value,
    is_canonical,
    status_of,
)

NOW, TOKEN, NEXT = 1_000.0, 7, 8
MOMENT = StepMoment("n", NOW, NEXT)
DIGEST = arguments_digest(["o-17", 990])
RUNNING = StoredStep.reserved(TOKEN, "first", DIGEST, NOW + 60).text
OVER = StoredStep.reserved(TOKEN, "first", DIGEST, NOW).text
DONE = StoredStep("done", TOKEN, DIGEST).text_with('{"id":1}')
FAILED = StoredStep("failed", TOKEN, DIGEST).text_with('"no funds"')
UNRECORDED = StoredStep("done", TOKEN, DIGEST, unrecorded="quota").text
OTHER = '{"value":1}'

STATES = {"absent": None, "running": RUNNING, "over": OVER, "done": DONE, "failed": FAILED, "other": OTHER}


def begin(**options: Any) -> StepBegin:
    return StepBegin("step_begin", "k", holder="second", **{"arguments": DIGEST, **options})


def renew(token: int = TOKEN) -> StepRenew:
    return StepRenew("step_renew", "k", token=token, lease_seconds=30)


def finish(state: str, token: int = TOKEN, **options: Any) -> StepFinish:
    return StepFinish("step_finish", "k", token=token, state=state, **options)


def entry(text: str | None) -> StoredEntry | None:
    return None if text is None else StoredEntry(text, None, TOKEN)


def applied(step: ComputedStep, text: str | None) -> tuple[str, Change | None]:
    """Apply a step and say what it did: ``wrote``, ``removed``, ``kept``, or the error's name."""
    try:
        change = step.change(entry(text), MOMENT)
    except KVStoreError as error:
        return type(error).__name__, None
    return "removed" if change.removes else "kept" if change.text is None else "wrote", change


#: What each operation does in each state: absent, running, over, done, failed, other.
TABLE: dict[str, tuple[ComputedStep, tuple[str, ...]]] = {
    "begin": (begin(), ("wrote", "kept", "kept", "kept", "kept", "InvalidValueTypeError")),
    "take over": (begin(takeover_token=TOKEN), ("wrote", "kept", "wrote", "kept", "kept", "InvalidValueTypeError")),
    "take over with an old token": (
        begin(takeover_token=TOKEN - 1),
        ("wrote", "kept", "kept", "kept", "kept", "InvalidValueTypeError"),
    ),
    "begin with other arguments": (
        begin(arguments=["o-17", 500]),
        ("wrote", *["StepConflictError"] * 4, "InvalidValueTypeError"),
    ),
    "renew": (renew(), ("StepLostError", "wrote", "wrote", *["StepLostError"] * 2, "InvalidValueTypeError")),
    "renew with another token": (renew(NEXT), (*["StepLostError"] * 5, "InvalidValueTypeError")),
    "done": (
        finish("done", value={"id": 1}),
        ("StepLostError", "wrote", "wrote", "kept", "StepLostError", "InvalidValueTypeError"),
    ),
    "done with another result": (
        finish("done", value={"id": 2}),
        ("StepLostError", "wrote", "wrote", *["StepLostError"] * 2, "InvalidValueTypeError"),
    ),
    "failed": (
        finish("failed", value="no funds"),
        ("StepLostError", "wrote", "wrote", "StepLostError", "kept", "InvalidValueTypeError"),
    ),
    "released": (
        finish("released"),
        ("kept", "removed", "removed", *["StepLostError"] * 2, "InvalidValueTypeError"),
    ),
    "unknown": (
        finish("unknown"),
        ("StepLostError", "wrote", "kept", *["StepLostError"] * 2, "InvalidValueTypeError"),
    ),
    "done with another token": (
        finish("done", NEXT, value={"id": 1}),
        (*["StepLostError"] * 5, "InvalidValueTypeError"),
    ),
    "released with another token": (
        finish("released", NEXT),
        ("kept", *["StepLostError"] * 4, "InvalidValueTypeError"),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_each_operation_in_each_state(name: str) -> None:
    step, effects = TABLE[name]
    assert {state: applied(step, text)[0] for state, text in STATES.items()} == dict(zip(STATES, effects, strict=True))


def test_a_new_holder_has_a_larger_token_and_a_lease_by_the_clock() -> None:
    for step, text in ((begin(), None), (begin(takeover_token=TOKEN), OVER)):
        change = applied(step, text)[1]
        assert change is not None
        assert change.text is not None
        stored = StoredStep.of_text(change.text, "n", "k")
        assert (stored.token, stored.holder, stored.arguments) == (NEXT, "second", DIGEST)
        assert (stored.state_at(NOW), stored.state_at(NOW + 59.9), stored.state_at(NOW + 60)) == (
            "in_progress",
            "in_progress",
            "unknown",
        )
        assert change.expires_at is None, "an expired reservation would forget an effect"
        result = step.result(MOMENT, change.answer, replayed=False)
        assert (result.state, result.token, result.lease_seconds) == ("reserved", NEXT, 60)


@pytest.mark.parametrize(
    ("text", "state", "value"),
    [
        (RUNNING, "in_progress", None),
        (OVER, "unknown", None),
        (DONE, "done", {"id": 1}),
        (FAILED, "failed", "no funds"),
    ],
)
def test_begin_and_status_tell_the_same(text: str, state: str, value: JSONValue) -> None:
    step = begin()
    result = step.result(MOMENT, step.change(entry(text), MOMENT).answer, replayed=False)
    status = status_of(GetResult("n", "k", found=True, value=decode_value(text)), NOW)
    for found in (result, status):
        assert (found.state, found.token, found.value) == (state, TOKEN, value)
        assert (found.holder, found.unrecorded) == ("first" if value is None else None, None)
        assert found.has_value is (value is not None)
        assert ("value" in found.to_dict()) is (value is not None)
    assert status_of(GetResult("n", "k", found=False), NOW).state == "absent"
    with pytest.raises(InvalidValueTypeError, match="not a durable step"):
        status_of(GetResult("n", "k", found=True, value=1), NOW)


def test_a_repetition_of_a_begin_whose_lease_ran_out_does_not_give_the_step() -> None:
    step = begin()
    answer = json.loads(json.dumps(step.change(None, MOMENT).answer))
    for seconds, state in ((0, "reserved"), (59, "reserved"), (60, "unknown"), (6000, "unknown")):
        result = step.result(StepMoment("n", NOW + seconds, 0), answer, replayed=True)
        assert (result.state, result.token, result.replayed) == (state, NEXT, True)


def test_the_record_of_a_begin_holds_no_value() -> None:
    step = begin()
    outcome = json.dumps(step.change(entry(DONE), MOMENT).answer)
    assert "value" in outcome
    result = step.result(MOMENT, json.loads(step.record_of(outcome)), replayed=True)
    assert (result.state, result.value, result.has_value) == ("done", None, False)
    other = json.dumps(step.change(None, MOMENT).answer)
    assert step.record_of(other) == other


def test_the_holder_may_renew_and_finish_after_its_lease_until_somebody_takes_over() -> None:
    taken = applied(begin(takeover_token=TOKEN), OVER)[1]
    assert taken is not None
    assert applied(renew(), OVER)[0] == "wrote"
    assert applied(renew(), taken.text)[0] == "StepLostError"
    assert applied(finish("done"), taken.text)[0] == "StepLostError"
    revived = applied(renew(), OVER)[1]
    assert revived is not None
    assert applied(begin(takeover_token=TOKEN), revived.text)[0] == "kept", "who was told unknown loses"


def test_a_token_grows_where_the_clock_is_behind_that_of_the_store_whose_entry_was_imported() -> None:
    imported = StoredStep.reserved(5_000, "first", DIGEST, NOW).text
    taken = applied(begin(takeover_token=5_000), imported)[1]
    assert taken is not None
    assert taken.text is not None
    assert StoredStep.of_text(taken.text, "n", "k").token == 5_001


def test_arguments_are_compared_only_where_both_sides_gave_some() -> None:
    without = applied(begin(arguments=None), None)[1]
    assert without is not None
    assert applied(begin(), without.text)[0] == "kept"
    assert applied(begin(arguments=None), DONE)[0] == "kept"
    taken = applied(begin(arguments=None, takeover_token=TOKEN), OVER)[1]
    assert taken is not None
    assert taken.text is not None
    assert StoredStep.of_text(taken.text, "n", "k").arguments == DIGEST, "an operator need not know them"
    with pytest.raises(StepConflictError, match="other arguments"):
        begin(arguments={"a": 1}).change(entry(DONE), MOMENT)


def test_an_outcome_is_kept_for_its_ttl() -> None:
    change = finish("done", value=1, ttl_seconds=5).change(entry(RUNNING), MOMENT)
    assert change.expires_at == NOW + 5
    assert finish("failed", value=1).change(entry(RUNNING), MOMENT).expires_at is None


@pytest.mark.parametrize("arguments", [None, DIGEST])
@pytest.mark.parametrize(("state", "why"), list(product(["done", "failed"], ["not_json", "too_large", "quota"])))
def test_an_outcome_without_its_value_is_never_longer_than_the_reservation(
    state: str, why: str, arguments: str | None
) -> None:
    reserved = StoredStep.reserved(TOKEN, "", arguments, 1.0e9).text
    change = finish(state, unrecorded=why).change(entry(reserved), MOMENT)
    assert change.text is not None
    assert len(change.text) <= len(reserved)
    stored = StoredStep.of_text(change.text, "n", "k")
    assert (stored.state, stored.unrecorded, stored.value) == (state, why, None)
    assert applied(finish(state, unrecorded=why), change.text)[0] == "kept"


def test_an_encoded_null_is_no_value() -> None:
    null = EncodedValue.of(None)
    assert finish("done", value=null, unrecorded="quota").text == "null"
    assert finish("released", value=null).value is None


@pytest.mark.parametrize("text", [RUNNING, DONE, FAILED, UNRECORDED])
def test_the_text_of_a_step_is_canonical(text: str) -> None:
    assert is_canonical(text)


@pytest.mark.parametrize("value", [None, 1.5, "ü\u0000", [], {"$step": 1}, [{"a": None}]])
def test_any_value_comes_back(value: JSONValue) -> None:
    text = finish("done", value=value).change(entry(RUNNING), MOMENT).text
    assert text is not None
    assert is_canonical(text)
    assert StoredStep.of_text(text, "n", "k").value == value


@pytest.mark.parametrize(
    "value",
    [
        1,
        "$step",
        ["$step"],
        {"$step": 2, "state": "done", "token": 1},
        {"$step": True, "state": "done", "token": 1},
        {"$step": 1, "state": "unknown", "token": 1},
        {"$step": 1, "state": "done"},
        {"$step": 1, "state": "done", "token": "1"},
        {"$step": 1, "state": [], "token": 1},
        {"$step": 1, "state": "reserved", "token": 1, "lease_until": 1.5},
        {"$step": 1, "state": "reserved", "token": 1, "holder": None},
        {"$step": 1, "state": "reserved", "token": 1, "arguments": 1},
        {"$step": 1, "state": "reserved", "token": 0},
        {"$step": 1, "state": "reserved", "token": 2**63},
        {"$step": 1, "state": "reserved", "token": 1, "lease_until": 10**400},
        {"$step": 1, "state": "reserved", "token": 1, "lease_until": -1},
    ],
)
def test_no_other_value_is_a_step(value: Any) -> None:
    assert StoredStep.of_value(decode_value(encode_value(value))) is None


def test_a_digest_stands_for_its_arguments() -> None:
    digest = arguments_digest({"b": [1, None], "a": "ü"})
    assert digest == arguments_digest({"a": "ü", "b": [1, None]}) == arguments_digest(digest)
    assert arguments_digest(None) is None
    different: list[JSONValue] = [1, 1.0, "1", True, [1], {}, [], "", digest]
    assert len({arguments_digest(value) for value in different}) == len(different)
    with pytest.raises(ValueSerializationError):
        arguments_digest((1, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: begin(lease_seconds=0),
        lambda: begin(lease_seconds=86_401),
        lambda: begin(lease_seconds=True),
        lambda: begin(lease_seconds=float("nan")),
        lambda: begin(takeover_token=0),
        lambda: begin(ttl_seconds=5),
        lambda: StepBegin("step_begin", "k", holder="x" * 256),
        lambda: StepBegin("step_begin", "k", holder="\ud800"),
        lambda: renew(0),
        lambda: renew(True),
        lambda: finish("over"),
        lambda: finish("reserved"),
        lambda: finish("released", value=1),
        lambda: finish("unknown", ttl_seconds=1),
        lambda: finish("done", value=1, unrecorded="quota"),
        lambda: finish("done", unrecorded="lazy"),
        lambda: finish("done", value=(1,)),
    ],
)
def test_wrong_arguments_are_refused(make: Any) -> None:
    with pytest.raises(InvalidRequestError):
        make()


def test_a_value_leaves_room_for_the_level_around_it() -> None:
    nested: Any = 1
    for _ in range(255):
        nested = [nested]
    text = finish("done", value=nested).change(entry(RUNNING), MOMENT).text
    assert text is not None
    assert is_canonical(text)
    with pytest.raises(ValueSerializationError, match="255 levels"):
        finish("done", value=[nested])


def test_a_lost_holder_is_told_the_token() -> None:
    with pytest.raises(StepLostError) as caught:
        finish("done").change(None, MOMENT)
    assert caught.value.args == ("n", "k", TOKEN)
