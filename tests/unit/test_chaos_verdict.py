"""Each check of the fault suite finds its violation, and none in a correct history."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kvworker.adapters.sql.record_ids import record_id
from tests.chaos.entry_checks import moment_violations
from tests.chaos.evidence import Entry, Ledger, Moment, Snapshot
from tests.chaos.history import Answer, Call, History, Outcome, Step, operations_of, seconds_at
from tests.chaos.verdict import violations

APPLIED, REPLAYED, REFUSED = Outcome.APPLIED, Outcome.REPLAYED, Outcome.REFUSED
EXPIRED, UNSENT, UNKNOWN, READ = Outcome.EXPIRED, Outcome.UNSENT, Outcome.UNKNOWN, Outcome.READ


def call(
    kind: str, *steps: Step, answers: tuple[Any, ...] = (), outcome: Outcome = APPLIED, began: float = 0.0, **given: Any
) -> Call:
    """Make a successful call that takes 0.1 s; ``answers`` are values or Answers."""
    call = Call(
        caller="c0",
        kind=kind,
        namespace="n",
        operation_id="" if kind.startswith("read") else f"{kind}-{began:g}",
        steps=steps,
        timeout_seconds=1.0,
        began=began,
        took_seconds=0.1,
        outcome=outcome,
        answers=tuple(answer if isinstance(answer, Answer) else Answer(answer) for answer in answers),
    )
    return replace(call, **given)


def add(delta: int, after: int | None = None, **given: Any) -> Call:
    """Make an increment of the counter k."""
    answers = () if after is None else (after,)
    return call(given.pop("kind", "increment"), Step("add", "k", delta), answers=answers, **given)


def put(value: Any, version: int = 1, *, key: str = "k", ttl_seconds: float | None = None, **given: Any) -> Call:
    """Make a set of k."""
    answers = (Answer(value, version),) if given.get("outcome", APPLIED).is_success else ()
    return call(given.pop("kind", "set"), Step("put", key, value, ttl_seconds), answers=answers, **given)


def remove(*, found: bool = True, **given: Any) -> Call:
    """Make a delete of k."""
    return call("delete", Step("remove", "k"), answers=(found,), **given)


def read(value: Any, *, kind: str = "read own", **given: Any) -> Call:
    """Make a get of k."""
    return call(kind, Step("read", "k"), answers=(value,), outcome=READ, **given)


def recorded(namespace: str, operation_id: str) -> tuple[str, str]:
    return namespace, record_id(operation_id).hex()


def database_with(calls: list[Call], values: dict[str, Any], *, version: int = 1) -> Snapshot:
    """Make a database with these values, exact ledgers, and a record of each acknowledged call."""
    entries = {("n", key): Entry(json.dumps(value), len(json.dumps(value)), version) for key, value in values.items()}
    used = sum(entry.size_bytes for entry in entries.values())
    records = {recorded(call.namespace, call.operation_id) for call in calls if call.outcome.is_success}
    return Snapshot(entries, {"n": Ledger(used, len(entries))}, frozenset(records))


def check(calls: list[Call], values: dict[str, Any], *, version: int = 1) -> list[str]:
    return violations(calls, database_with(calls, values, version=version))


def only(problems: list[str]) -> str:
    (problem,) = problems
    return problem


CORRECT: dict[str, tuple[list[Call], dict[str, Any]]] = {
    "nothing": ([], {}),
    "a counter": ([add(2, 2, began=0), add(3, 5, began=1)], {"k": 5}),
    "increments that overlap in any order": ([add(2, 5, began=0), add(3, 3, began=0.05)], {"k": 5}),
    "unknown, then applied": (
        [add(2, outcome=UNKNOWN, error="OperationTimeoutError"), add(2, 2, outcome=REPLAYED)],
        {"k": 2},
    ),
    "expired, then applied": ([add(2, outcome=EXPIRED), add(2, 2)], {"k": 2}),
    "expired and unsent": ([add(2, outcome=EXPIRED), add(2, outcome=UNSENT, began=1)], {}),
    "refused": ([put(1, outcome=REFUSED, kind="crowd", error="NamespaceQuotaExceededError")], {}),
    "set, read, deleted, read": (
        [put("v"), read("v", began=1), remove(began=2), read(None, began=3)],
        {},
    ),
    "set and deleted at the same time": ([put("v"), remove(began=0.05)], {"k": "v"}),
    "read while it is set by another": (
        [put("v", caller="c1"), read(None, began=0.05, kind="read expiring")],
        {"k": "v"},
    ),
    "expired entry": ([put("v", ttl_seconds=1.0), read(None, began=3, kind="read expiring")], {}),
    "expired entry that is not swept": ([put("v", ttl_seconds=1.0)], {"k": "v"}),
    "a claim and its loser": (
        [
            put("a", kind="claim"),
            put("b", kind="claim", began=1, outcome=REFUSED, error="VersionConflictError"),
        ],
        {"k": "a"},
    ),
    "a counter read while it changes": (
        [add(2, 2), read(0, began=0.05, kind="read counter"), read(2, began=1, kind="read counter")],
        {"k": 2},
    ),
}


@pytest.mark.parametrize("name", CORRECT)
def test_a_correct_history_has_no_violation(name: str) -> None:
    calls, values = CORRECT[name]
    assert check(calls, values) == []


def test_a_call_that_outlives_its_timeout() -> None:
    assert check([add(1, 1, took_seconds=2.0)], {"k": 1}) == []
    assert "outlived its timeout" in only(check([add(1, 1, took_seconds=2.1)], {"k": 1}))


@pytest.mark.parametrize("error", ["AttributeError", "SchemaError", "VersionConflictError", "IdempotencyConflictError"])
def test_an_error_that_nothing_explains(error: str) -> None:
    calls = [add(1, outcome=UNKNOWN, error=error), add(1, 1)]
    assert f"nothing explains: {error}" in only(check(calls, {"k": 1}))


@pytest.mark.parametrize("last", [UNKNOWN, EXPIRED, UNSENT])
def test_an_operation_that_stays_unknown(last: Outcome) -> None:
    calls = [add(1, outcome=UNKNOWN), add(1, outcome=last)]
    assert "still unknown after 2 tries" in only(check(calls, {}))


def test_an_acknowledged_write_without_a_record() -> None:
    snapshot = replace(database_with([add(1, 1)], {"k": 1}), records=frozenset())
    assert "there is no record of it" in only(violations([add(1, 1)], snapshot))


@pytest.mark.parametrize("outcome", [REFUSED, EXPIRED, UNSENT])
def test_a_write_that_was_applied_although_it_was_reported_as_failed(outcome: Outcome) -> None:
    calls = [put("v", outcome=outcome)]
    snapshot = replace(database_with(calls, {"k": "v"}), records=frozenset({recorded("n", "set-0")}))
    problems = violations(calls, snapshot)
    assert f"reported as {outcome}, but it was applied" in problems[0]
    assert "never acknowledged" in problems[1]


def test_a_refusal_after_an_unknown_try_must_hold_as_well() -> None:
    calls = [put("v", outcome=UNKNOWN), put("v", outcome=REFUSED)]
    snapshot = replace(database_with(calls, {"k": "v"}), records=frozenset({recorded("n", "set-0")}))
    assert "reported as refused, but it was applied" in violations(calls, snapshot)[0]


def test_a_record_and_an_entry_that_no_caller_asked_for() -> None:
    snapshot = replace(database_with([], {"k": 1}), records=frozenset({recorded("n", "injected")}))
    record, entry = violations([], snapshot)
    assert f"no caller asked for: {recorded('n', 'injected')[1]}" in record
    assert "an entry that no caller asked for: 'k'" in entry


def test_an_operation_that_two_tries_have_applied() -> None:
    calls = [put("v"), put("v")]
    assert "2 tries say that they applied it" in only(check(calls, {"k": "v"}))


@pytest.mark.parametrize("value", [1, 4])
def test_a_counter_that_is_not_the_sum(value: int) -> None:
    calls = [add(1, 1, began=0), add(2, 3, began=1)]
    assert "sum up to 3" in only(check(calls, {"k": value}))


def test_a_counter_that_is_gone() -> None:
    assert "is 0, the acknowledged increments sum up to 1" in only(check([add(1, 1)], {}))


def test_two_increments_that_started_from_the_same_value() -> None:
    calls = [add(2, 2, began=0), add(2, 2, began=1)]
    assert "became 2 by adding 2, but it was 2 before" in only(check(calls, {"k": 4}))


def test_a_lost_swap() -> None:
    calls = [add(1, 1, kind="swap", began=0), add(1, 2, kind="swap", began=1)]
    assert "is 1, the acknowledged increments sum up to 2" in only(check(calls, {"k": 1}))


def test_an_acknowledged_write_that_is_gone() -> None:
    assert "an acknowledged write is gone" in only(check([put("v")], {}))
    assert "an acknowledged write is gone" in only(check([remove(found=True), put("v", began=1)], {}))


def test_a_value_of_another_write() -> None:
    calls = [put("a", 1), put("b", 2, began=1, outcome=EXPIRED)]
    assert "never acknowledged" in only(check(calls, {"k": "b"}))


def test_a_register_that_lost_its_last_write() -> None:
    calls = [put("a", 1, kind="overwrite"), put("b", 2, kind="overwrite", began=1)]
    assert "is at version 1, but version 2 was acknowledged" in only(check(calls, {"k": "a"}, version=1))
    assert check(calls, {"k": "b"}, version=2) == []


def test_a_removed_entry_that_is_there() -> None:
    calls = [put("v"), remove(began=1)]
    assert "though it was removed" in only(check(calls, {"k": "v"}))


def test_a_claim_that_two_callers_have_won() -> None:
    calls = [put("a", 1, kind="claim"), put("b", 2, kind="claim", began=1, caller="c1")]
    assert "2 callers won 'k' in 'n': c0, c1" in only(check(calls, {"k": "b"}, version=2))


def test_a_refused_claim_that_no_caller_has_won() -> None:
    calls = [put("a", kind="claim", outcome=REFUSED, error="VersionConflictError")]
    assert "no caller won 'k'" in only(check(calls, {}))


def test_a_delete_that_did_not_find_its_entry() -> None:
    calls = [put("v"), remove(found=False, began=1)]
    assert "a delete did not find its entry" in only(check(calls, {}))


def test_a_read_that_is_older_than_the_callers_last_write() -> None:
    calls = [put("a", 1, began=0), put("b", 2, began=1), read("a", began=2)]
    assert 'a read returned "a"' in only(check(calls, {"k": "b"}, version=2))
    assert "a read returned null" in only(check([put("a"), read(None, began=1)], {"k": "a"}))
    assert 'a read returned "a"' in only(check([put("a"), remove(began=1), read("a", began=2)], {}))


def test_an_entry_that_expires_too_early_or_too_late() -> None:
    early = [put("v", ttl_seconds=5.0), read(None, began=2, kind="read expiring")]
    assert "gone before its TTL" in only(check(early, {}))
    late = [put("v", ttl_seconds=1.0), read("v", began=2, kind="read expiring")]
    assert "read after its TTL" in only(check(late, {}))


@pytest.mark.parametrize(("value", "began"), [(1, 5.0), (9, 5.0), (3, 0.05)])
def test_a_counter_read_with_an_impossible_value(value: int, began: float) -> None:
    calls = [add(2, 2, began=0), add(3, 5, began=1), read(value, began=began, kind="read counter")]
    assert f"read as {value}, but must have been between" in only(check(calls, {"k": 5}))


def test_twins_that_were_read_with_different_values() -> None:
    calls = [call("read twins", Step("read", "k"), Step("read", "l"), answers=(1, 2), outcome=READ)]
    assert "twin counters were read as [1, 2]" in only(check(calls, {}))


def test_twins_that_end_with_different_values() -> None:
    calls = [call("twins", Step("add", "k", 1), Step("add", "l", 1), answers=(1, 1))]
    problems = check(calls, {"k": 1})
    assert any("twin counters of 'n' ended as [0, 1]" in problem for problem in problems)


def test_a_ledger_that_is_not_the_sum_of_its_entries() -> None:
    snapshot = replace(database_with([put("v")], {"k": "v"}), ledgers={"n": Ledger(4, 1)})
    assert "says 4 bytes in 1 entries, its entries have 3 in 1" in only(violations([put("v")], snapshot))
    snapshot = replace(snapshot, ledgers={"n": Ledger(3, 2)})
    assert "says 3 bytes in 2 entries" in only(violations([put("v")], snapshot))
    assert "says 0 bytes" in only(violations([put("v")], replace(snapshot, ledgers={})))


def test_an_entry_whose_size_is_wrong() -> None:
    entries = {("n", "k"): Entry('"v"', 4, 1)}
    snapshot = replace(database_with([put("v")], {}), entries=entries, ledgers={"n": Ledger(4, 1)})
    assert "is 3 bytes, but counted as 4" in only(violations([put("v")], snapshot))


def test_violations_that_an_observer_can_see() -> None:
    assert list(moment_violations(Moment({"n": Ledger(5, 1, 5)}, {"n": (5, 1)}, {"n": (1, 1)}))) == []
    assert "more than its quota of 5" in only(list(moment_violations(Moment({"n": Ledger(6, 1, 5)}, {"n": (6, 1)}))))
    assert "differ in one snapshot" in only(list(moment_violations(Moment({}, {}, {"n": (1, 2)}))))
    assert "its entries have 5 in 1" in only(list(moment_violations(Moment({}, {"n": (5, 1)}))))


def test_a_history_returns_the_recorded_calls(tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    calls = [add(1, 1), read(1, began=1, took_seconds=0.5)]
    history.add(*calls)
    assert history.calls() == calls
    history.close()
    assert [operation.tries for operation in operations_of(calls)] == [(calls[0],)]
    assert (seconds_at(calls, 0.5), seconds_at(calls, 1.0), seconds_at([], 0.5)) == (0.5, 0.5, 0.0)
