"""``once`` and ``step`` without a queue: one run, recorded outcomes, and what nobody can know."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from weakref import ref

import pytest

from kvworker import (
    EffectUnknownError,
    IdempotencyConflictError,
    InlineKeyValueStore,
    InvalidRequestError,
    OperationTimeoutError,
    QueueUnavailableError,
    StepConflictError,
    StepFailedError,
    StepInProgressError,
    StepLostError,
    StepUnrecordedError,
    UnsupportedMessageError,
)
from kvworker.client.base import KeyValueOperations
from kvworker.durable import (
    Done,
    NotDone,
    StepOptions,
    StepRequest,
    UnknownStep,
    current_step,
    done,
    not_done,
    run_once,
)
from kvworker.durable.heartbeat import Heartbeat
from kvworker.durable.step_actions import HeldStep
from kvworker.model import OperationResult
from kvworker.tools import Tool
from tests.support.processes import wait_until


class CardDeclinedError(Exception):
    """A declared error."""


class NoFundsError(CardDeclinedError):
    """A subclass with arguments."""

    def __init__(self, order: str, missing: int) -> None:
        super().__init__(order, missing)


@pytest.fixture
def store() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as inline:
        yield inline


def make_unknown(store: InlineKeyValueStore, key: str = "o-17", arguments: Any = None) -> int:
    """Leave a step as a process leaves it that dies in its function."""
    token = store.step_begin("charges", key, holder="dead", arguments=arguments).token
    assert token is not None
    store.step_finish("charges", key, token, "unknown")
    return token


def test_the_function_runs_once_and_its_result_is_returned_again(store: InlineKeyValueStore) -> None:
    runs: list[tuple[str, int]] = []

    @store.once("charges", key=lambda order, cents=990: order)  # noqa: ARG005 - all get the call's arguments
    def charge(order: str, cents: int = 990) -> dict[str, Any]:
        runs.append((order, cents))
        return {"order": order, "cents": cents}

    first = charge("o-17", 990)
    assert charge("o-17") == charge(order="o-17", cents=990) == first == {"order": "o-17", "cents": 990}
    with pytest.raises(IdempotencyConflictError) as caught:
        charge("o-17", 500)
    assert isinstance(caught.value, StepConflictError)
    charge("o-18")
    assert runs == [("o-17", 990), ("o-18", 990)]
    assert charge.__name__ == "charge"
    ttl_seconds = store.get("charges", "o-17").ttl_seconds
    assert ttl_seconds is not None
    assert 604_000 < ttl_seconds <= 604_800


@pytest.mark.parametrize("result", [None, 0, "", [], {"$step": 1}, [{"a": None}], "x" * 100_000])
def test_any_json_value_is_a_result(store: InlineKeyValueStore, result: Any) -> None:
    runs = []

    @store.once("n")
    def effect() -> Any:
        runs.append(1)
        return result

    assert effect() == effect() == result
    assert runs == [1]


def test_without_a_key_each_call_with_other_arguments_is_another_step(store: InlineKeyValueStore) -> None:
    runs: list[Any] = []

    @store.once("n")
    def effect(*args: int, **kwargs: Any) -> int:
        runs.append((args, kwargs))
        return len(runs)

    assert [effect(1, 2), effect(1, 2), effect(2, 1), effect(a={"b": 1, "c": 2}), effect(a={"c": 2, "b": 1})] == [
        1,
        1,
        2,
        3,
        3,
    ]
    assert all(".effect:" in entry.key for entry in store.list_keys("n").entries)


def test_arguments_that_are_not_json_need_a_function_that_makes_them_so(store: InlineKeyValueStore) -> None:
    when = object()

    @store.once("n", key="launch")
    def launch(name: str, at: object) -> str:
        return name

    with pytest.raises(InvalidRequestError, match=r"the argument 'at' of .*launch is not a JSON value.*arguments="):
        launch("a", when)

    @store.once("n", key="launch", arguments=lambda name, at: name)  # noqa: ARG005
    def launch_again(name: str, at: object) -> str:
        return name

    assert launch_again("a", when) == launch_again("a", object()) == "a"


def test_many_threads_run_it_once_and_all_get_the_result(store: InlineKeyValueStore) -> None:
    runs = []

    @store.once("n", key="k", wait_seconds=60)
    def effect() -> int:
        runs.append(1)
        time.sleep(0.2)
        return len(runs)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: effect(), range(8))) == [1] * 8
    assert runs == [1]


def test_a_second_caller_is_told_at_once_without_a_wait(store: InlineKeyValueStore) -> None:
    running, may_end = threading.Event(), threading.Event()

    @store.once("n", key="k")
    def effect() -> int:
        running.set()
        assert may_end.wait(60)
        return 1

    thread = threading.Thread(target=effect)
    thread.start()
    assert running.wait(60)
    with pytest.raises(StepInProgressError, match="in progress, held by 'effect on ") as caught:
        effect()
    assert 0 < caught.value.lease_seconds <= 60
    may_end.set()
    thread.join(60)
    assert effect() == 1


def test_a_function_that_calls_itself_with_its_key_does_not_wait_for_itself(store: InlineKeyValueStore) -> None:
    @store.once("n", key="k", wait_seconds=600, record=StepInProgressError)
    def effect() -> Any:
        return effect()

    with pytest.raises(StepInProgressError):
        effect()


def test_a_declared_error_is_recorded_and_raised_again(store: InlineKeyValueStore) -> None:
    runs = []

    @store.once("n", key="k", record=CardDeclinedError)
    def charge() -> None:
        runs.append(1)
        raise NoFundsError("o-17", 990)

    for _ in range(2):
        with pytest.raises(NoFundsError) as caught:
            charge()
        assert caught.value.args == ("o-17", 990)
    assert runs == [1]
    with pytest.raises(StepFailedError, match="NoFundsError") as failed, store.step("n", "k"):
        pytest.fail("the block must not run")
    assert failed.value.error_type.endswith("test_once.NoFundsError")
    assert "o-17" not in str(failed.value), "no value in an error's text"


def test_a_released_error_lets_the_effect_be_tried_again(store: InlineKeyValueStore) -> None:
    attempts = []

    @store.once("n", key="k", release=ConnectionError)
    def charge() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionRefusedError
        return len(attempts)

    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            charge()
    assert charge() == charge() == 3


@pytest.mark.parametrize("error", [ValueError("after the charge?"), KeyboardInterrupt(), SystemExit()])
def test_any_other_error_makes_the_step_unknown_at_once(store: InlineKeyValueStore, error: BaseException) -> None:
    runs = []

    @store.once("charges", key="k")
    def charge() -> None:
        runs.append(1)
        raise error

    with pytest.raises(type(error)):
        charge()
    with pytest.raises(EffectUnknownError, match="unknown: 'charge on ") as caught:
        charge()
    assert caught.value.token == store.step_status("charges", "k").token
    assert runs == [1]


def test_a_reconcile_function_settles_an_unknown_step(store: InlineKeyValueStore) -> None:
    seen: list[UnknownStep] = []
    answers: list[Done | NotDone] = [done({"id": 1}), not_done]
    runs = []

    def look(step: UnknownStep) -> Done | NotDone:
        seen.append(step)
        return answers.pop(0)

    @store.once("charges", key=lambda order: order, on_unknown=look)
    def charge(order: str) -> dict[str, int]:
        runs.append(order)
        return {"id": 2}

    lost = make_unknown(store)
    assert charge("o-17") == charge("o-17") == {"id": 1}
    assert (seen[0].key, seen[0].name, seen[0].holder, seen[0].lost_token) == ("o-17", "charge", "dead", lost)
    assert seen[0].token > lost
    with pytest.raises(StepLostError):
        store.step_finish("charges", "o-17", lost, "done", value={"id": 3})
    make_unknown(store, "o-18")
    assert charge("o-18") == {"id": 2}
    assert runs == ["o-18"]
    assert answers == []


@pytest.mark.parametrize("answer", [None, True, "done", "raise"])
def test_a_reconcile_function_that_cannot_tell_leaves_it_unknown(store: InlineKeyValueStore, answer: Any) -> None:
    def look(_: UnknownStep) -> Any:
        if answer == "raise":
            raise LookupError
        return answer

    @store.once("charges", key="o-17", on_unknown=look)
    def charge() -> None:
        pytest.fail("it must not run")

    make_unknown(store)
    for _ in range(2):
        with pytest.raises(LookupError if answer == "raise" else InvalidRequestError):
            charge()
    assert store.step_status("charges", "o-17").state == "unknown"


def test_two_reconcilers_cannot_both_win(store: InlineKeyValueStore) -> None:
    make_unknown(store)
    looking, may_answer = threading.Event(), threading.Event()
    looks = []

    def look(_: UnknownStep) -> NotDone:
        looks.append(1)
        looking.set()
        assert may_answer.wait(60)
        return not_done

    runs = []

    @store.once("charges", key="o-17", on_unknown=look)
    def charge() -> int:
        runs.append(1)
        return len(runs)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(charge)
        assert looking.wait(60)
        with pytest.raises(StepInProgressError):
            charge()
        may_answer.set()
        assert first.result(60) == 1
    assert (runs, looks) == ([1], [1])


def test_retry_runs_the_effect_again(store: InlineKeyValueStore) -> None:
    make_unknown(store)

    @store.once("charges", key="o-17", on_unknown="retry")
    def charge() -> str:
        return "again"

    assert charge() == "again"


def test_a_heartbeat_holds_the_step_for_longer_than_its_lease(store: InlineKeyValueStore) -> None:
    renewed_until = []

    @store.once("n", key="k", lease_seconds=0.3)
    def effect() -> str:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            renewed_until.append(store.step_status("n", "k").state)
            time.sleep(0.02)
        return "done"

    assert effect() == "done"
    assert set(renewed_until[:5]) == {"in_progress"}


def test_a_step_that_nobody_has_any_more_is_not_renewed(store: InlineKeyValueStore) -> None:
    request = StepRequest(StepOptions("n", lease_seconds=0.2), "k")
    token = store.step_begin("n", "k", holder=request.holder, lease_seconds=0.2).token
    assert token is not None
    renewals = Heartbeat()
    # As if an interrupt had come between the reservation and the block.
    renewals.hold(store, HeldStep(request, token, 0.0))
    wait_until(lambda: store.step_status("n", "k").state == "unknown", what="the lease to run out")
    time.sleep(0.3)
    assert store.step_status("n", "k").state == "unknown"


class SlowHeartbeat(Heartbeat):
    """The step ends at the moment in which its renewal is due."""

    def _renew(self, store: KeyValueOperations, reference: ref[HeldStep]) -> None:
        step = reference()
        if step is not None:
            self.forget(step)
        super()._renew(store, reference)


def test_a_renewal_that_is_due_as_the_step_ends_begins_no_others(store: InlineKeyValueStore) -> None:
    renewals = SlowHeartbeat()
    request = StepRequest(StepOptions("n", lease_seconds=0.2), "k")
    token = store.step_begin("n", "k", holder=request.holder, lease_seconds=0.2).token
    assert token is not None
    step = HeldStep(request, token, 0.0)
    renewals.hold(store, step)
    wait_until(lambda: store.step_status("n", "k").state == "unknown", what="the lease to run out")
    assert not renewals.forget(step)


def test_a_release_whose_answer_is_lost_is_not_told_as_the_loss_of_the_step() -> None:
    class Forgetful(InlineKeyValueStore):
        has_lost = False

        def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
            if tool.name != "kv_step_finish":
                return super().call_tool(tool, arguments, timeout)
            result = super().call_tool(tool, {"idempotency_key": "first", **arguments}, timeout)
            if not self.has_lost:
                self.has_lost = True
                self.step_begin("n", "k", holder="next")
                raise OperationTimeoutError("first", "pending")
            return result

    with Forgetful() as store, store.step("n", "k") as step:
        step.release()


def test_an_error_that_cannot_be_shown_is_recorded_all_the_same(store: InlineKeyValueStore) -> None:
    class UnshownError(CardDeclinedError):
        def __str__(self) -> str:
            raise ValueError

    @store.once("n", key="k", record=CardDeclinedError)
    def effect() -> None:
        raise UnshownError

    with pytest.raises(UnshownError):
        effect()
    assert store.step_status("n", "k").state == "failed"
    with pytest.raises(StepFailedError):
        effect()


def test_a_late_result_is_refused_and_the_holder_learns_that_it_lost(store: InlineKeyValueStore) -> None:
    @store.once("n", key="k", lease_seconds=0.3)
    def effect() -> str:
        # Another caller takes over, as after a lease that ran out. A renewal may come in between.
        held = store.step_status("n", "k").token
        assert held is not None
        store.step_finish("n", "k", held, "unknown")
        while store.step_begin("n", "k", takeover_token=held).state != "reserved":
            store.step_finish("n", "k", held, "unknown")
        return "late"

    with pytest.raises(StepLostError):
        effect()
    assert store.step_status("n", "k").value is None


def test_a_holder_learns_that_it_lost(store: InlineKeyValueStore) -> None:
    step = store.step("n", "k", lease_seconds=0.3)
    with pytest.raises(StepLostError) as caught, step:  # noqa: PT012
        store.delete("n", "k")
        wait_until(lambda: step.lost, what="the loss learned by a renewal")
    assert caught.value.token == step.token


def test_a_result_that_does_not_fit_is_never_a_reason_to_run_again() -> None:
    with InlineKeyValueStore() as roomy:
        roomy.set_quota("n", 600)
        runs = []

        @roomy.once("n", key=lambda result: "not json" if callable(result) else str(len(result)), arguments=lambda _: 1)
        def effect(result: Any) -> Any:
            runs.append(1)
            return result

        for result, why in (("x" * 1000, "quota"), (print, "not_json")):
            for _ in range(2):
                with pytest.raises(StepUnrecordedError) as caught:
                    effect(result)
                assert (caught.value.state, caught.value.why) == ("done", why)
        assert runs == [1, 1]


def test_a_block_runs_if_it_is_needed(store: InlineKeyValueStore) -> None:
    needed = []
    for _ in range(2):
        with store.step("n", "k", arguments={"a": 1}) as step:
            needed.append(step.needed)
            if step.needed:
                assert step.token > 0
                step.finish({"id": 1})
                with pytest.raises(InvalidRequestError, match="finished before"):
                    step.finish(2)
        assert step.result == {"id": 1}
    assert needed == [True, False]
    with pytest.raises(StepConflictError), store.step("n", "k", arguments={"a": 2}):
        pytest.fail("the block must not run")
    with store.step("n", "without a result"):
        pass
    assert store.step_status("n", "without a result").value is None
    with store.step("n", "released") as released:
        released.release()
    assert store.step_status("n", "released").state == "absent"
    with pytest.raises(InvalidRequestError, match="no result yet"):
        _ = released.result


def test_a_forked_child_does_not_hold_the_step(store: InlineKeyValueStore) -> None:
    with store.step("n", "k") as step:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                step.finish("of the child")
            except InvalidRequestError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        step.finish("of the parent")
    assert step.result == "of the parent"


class Losing(InlineKeyValueStore):
    """Loses the answers of the first calls of some tools, after they were applied, with an error."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[tuple[str, BaseException | None]] = []

    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> Any:
        pending = self.submit(tool.name, arguments, timeout=timeout)
        if self.losses and self.losses[0][0] == tool.name:
            _, error = self.losses.pop(0)
            if error is None:
                return pending.result()
            raise OperationTimeoutError(pending.operation_id) if isinstance(error, OperationTimeoutError) else error
        return pending.result()


@pytest.mark.parametrize("count", [1, 2])
def test_a_lost_answer_is_asked_for_again(count: int) -> None:
    runs = []
    with Losing() as store:
        store.losses = [
            (tool, OperationTimeoutError("")) for tool in ("kv_step_begin", "kv_step_finish") for _ in range(count)
        ]
        assert store.once("n", key="k")(lambda: runs.append(1))() is None
        assert store.losses == []
        assert store.step_status("n", "k").state == "done"
    assert runs == [1]


class Older(InlineKeyValueStore):
    """A store whose next calls of ``kv_step_finish`` meet workers that do not know durable steps."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.refused: list[Mapping[str, Any]] = []

    def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        if len(self.refused) < self.count and tool.name == "kv_step_finish":
            self.refused.append(arguments)
            raise UnsupportedMessageError("the worker does not know kv_step_finish")
        return super().call_tool(tool, arguments, timeout)


def test_an_outcome_that_an_older_worker_refuses_is_sent_again() -> None:
    with Older(3) as store:
        assert store.once("n", key="k")(lambda: {"id": 1})() == {"id": 1}
        assert (len(store.refused), store.step_status("n", "k").value) == (3, {"id": 1})


def test_an_outcome_that_every_worker_refuses_is_not_called_too_large() -> None:
    with Older(1000) as store:
        with pytest.raises(EffectUnknownError) as caught:
            store.once("n", key="k", lease_seconds=0.2)(lambda: {"id": 1})()
        assert isinstance(caught.value.__cause__, UnsupportedMessageError)
        assert not [arguments for arguments in store.refused if "unrecorded" in arguments]


def test_an_outcome_that_the_store_does_not_take_is_told_as_unknown() -> None:
    """ "It was not applied" would be true of the message, and be read as true of the effect."""
    with Losing() as store:
        store.losses = [("kv_step_finish", QueueUnavailableError(""))] * 1000
        charge = store.once("n", key="k", lease_seconds=0.3)(lambda: 1)
        with pytest.raises(EffectUnknownError) as caught:
            charge()
        assert isinstance(caught.value.__cause__, QueueUnavailableError)
        store.losses = []
        assert charge() == 1


@pytest.mark.parametrize("error", [OperationTimeoutError(""), KeyboardInterrupt()])
def test_a_begin_that_is_given_up_leaves_nothing_unknown(error: BaseException) -> None:
    with Losing() as store:
        store.losses = [("kv_step_begin", error)] * 3
        with pytest.raises(type(error)):
            store.once("n", key="k")(lambda: pytest.fail("it must not run"))()
        store.losses = []
        assert store.step_status("n", "k").state == "absent"
        token = make_unknown(store)
        # The second begin takes over.
        store.losses = [("kv_step_begin", None), ("kv_step_begin", KeyboardInterrupt())]
        with pytest.raises(KeyboardInterrupt), store.step("charges", "o-17", on_unknown="retry"):
            pytest.fail("it must not run")
        store.losses = []
        left = store.step_status("charges", "o-17")
        assert (left.state, left.token != token) == ("unknown", True)


def test_no_clock_of_a_caller_matters(store: InlineKeyValueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.step_begin("n", "k", holder="holder", lease_seconds=60)
    now = time.time()
    for shift in (1e6, -1e6):
        monkeypatch.setattr(time, "time", lambda shift=shift: now + shift)
        assert store.step_status("n", "k").state == "in_progress"
        with pytest.raises(StepInProgressError), store.step("n", "k", on_unknown="retry"):
            pytest.fail("it must not run")


def test_one_request_makes_attempts_of_different_holders(store: InlineKeyValueStore) -> None:
    request = StepRequest(StepOptions("n"), "k")

    def nested() -> Any:
        return run_once(store, request, lambda: pytest.fail("it must not run"))

    with pytest.raises(StepInProgressError):
        run_once(store, request, nested)


def test_the_function_knows_its_step(store: InlineKeyValueStore) -> None:
    @store.once("n", key="inner")
    def inner() -> Any:
        return [current_step().key, current_step().token, current_step().lost]

    @store.once("n", key="outer")
    def outer() -> Any:
        return [inner(), current_step().key]

    assert outer() == [["inner", store.step_status("n", "inner").token, False], "outer"]
    with pytest.raises(InvalidRequestError, match="no durable step"):
        current_step()


def test_wrong_uses_are_refused(store: InlineKeyValueStore) -> None:
    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    with pytest.raises(InvalidRequestError, match="AsyncKeyValueStore"):
        store.once("n")(coroutine)
    with pytest.raises(InvalidRequestError, match="generator function"):
        store.once("n")(generator)
    for unnamed in (lambda: 1, partial(make_unknown, store), store.list_namespaces):
        with pytest.raises(InvalidRequestError, match="do not identify the effect"):
            store.once("n")(unnamed)
    options: list[dict[str, Any]] = [
        {"lease_seconds": 0},
        {"ttl_seconds": -1},
        {"wait_seconds": -1},
        {"on_unknown": "guess"},
        {"record": ["no"]},
        {"release": KeyboardInterrupt},
        {"timeout": 0},
    ]
    for wrong in options:
        with pytest.raises(InvalidRequestError):
            store.once("n", **wrong)
    with pytest.raises(InvalidRequestError, match="must be a string"):
        store.once("n", key=lambda: 7)(lambda: None)()  # type: ignore[arg-type, return-value]


def test_one_caller_makes_a_missing_value_and_the_others_wait(store: InlineKeyValueStore) -> None:
    runs = []

    def produce() -> dict[str, int]:
        runs.append(1)
        time.sleep(0.2)
        return {"made": len(runs)}

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: store.get_or_set("n", "k", produce, 60), range(8)))
    assert found == [{"made": 1}] * 8
    assert store.get("n", "k").value == {"made": 1}
    assert [entry.key for entry in store.list_keys("n").entries] == ["k"]
    with pytest.raises(ZeroDivisionError):
        store.get_or_set("n", "other", lambda: 1 / 0)
    assert store.get_or_set("n", "other", lambda: "after the failure") == "after the failure"
