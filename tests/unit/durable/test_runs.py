"""Runs without a queue: a function that is called again gets the recorded results and continues."""

# ruff: noqa: PT012 - a run ends with its block

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvworker import (
    AsyncKeyValueStore,
    EffectUnknownError,
    IdempotencyConflictError,
    InlineKeyValueStore,
    InvalidRequestError,
    StepFailedError,
    StepInProgressError,
    StepLostError,
    StepUnrecordedError,
)
from kvworker.durable.run_steps import HOLD_BACK_SECONDS
from kvworker.messaging.observer import CallObserver
from kvworker.messaging.outcomes import Outcome
from kvworker.testing.support import eventually
from kvworker.tools import Tool


class Messages(CallObserver):
    """Notes the tool of each call."""

    def __init__(self) -> None:
        self.tools: list[str] = []

    def call_began(self, tool: Tool) -> None:
        self.tools.append(tool.name)

    def call_ended(self, tool: Tool, outcome: Outcome, seconds: float) -> None: ...

    def take(self) -> list[str]:
        taken, self.tools = [name.removeprefix("kv_") for name in self.tools], []
        return taken


@pytest.fixture
def messages() -> Messages:
    return Messages()


@pytest.fixture
def store(messages: Messages) -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore(observer=messages) as inline:
        yield inline


class Killed(BaseException):
    """Ends an execution as a signal does."""


def effects() -> tuple[list[str], Callable[..., Any]]:
    performed: list[str] = []

    def perform(what: str, *, fails: BaseException | None = None) -> dict[str, Any]:
        performed.append(what)
        if fails:
            raise fails
        return {"what": what, "number": len(performed)}

    return performed, perform


def test_finishing_a_step_and_beginning_the_next_is_one_message(store: InlineKeyValueStore, messages: Messages) -> None:
    performed, perform = effects()

    def trip() -> list[Any]:
        with store.run("run-7") as run:
            return [run.step(name, perform, name) for name in ("book", "charge", "mail")]

    first = trip()
    assert messages.take() == ["step_begin", "batch", "batch", "step_finish"]
    assert trip() == first
    assert messages.take() == ["step_begin", "get", "get"], "a replay only reads"
    assert performed == ["book", "charge", "mail"]
    assert [entry.key for entry in store.list_keys("runs").entries] == [f"run-7/{n:06d}" for n in (1, 2, 3)]


def test_without_a_block_each_step_is_recorded_at_once(store: InlineKeyValueStore, messages: Messages) -> None:
    _, perform = effects()
    run = store.run("run-7", namespace="trips")
    assert run.step("book", perform, "book")["number"] == 1
    assert store.step_status("trips", "run-7/000001").state == "done"
    assert messages.take()[:2] == ["step_begin", "step_finish"]


def test_an_end_is_not_held_back_for_long(store: InlineKeyValueStore, messages: Messages) -> None:
    _, perform = effects()
    with store.run("run-7") as run:
        result = run.step("book", perform, "book")
        result["what"] = "changed by the caller"
        eventually(lambda: store.step_status("runs", "run-7/000001").state == "done", timeout_seconds=60)
        assert store.step_status("runs", "run-7/000001").value == {"what": "book", "number": 1}
        messages.take()
        run.step("charge", perform, "charge")
    assert messages.take() == ["step_begin", "step_finish"]
    assert HOLD_BACK_SECONDS < 0.1


@pytest.mark.parametrize("dies_at", range(4))
def test_a_run_that_was_killed_continues_where_it_stopped(store: InlineKeyValueStore, dies_at: int) -> None:
    performed, perform = effects()
    looked = []

    def trip(death: int) -> list[Any]:
        with store.run("run-7", on_unknown=lambda step: looked.append(step) or not_done()) as run:  # type: ignore[func-returns-value]
            results = []
            for number, name in enumerate(("book", "charge", "mail")):
                if number == death:
                    raise Killed
                results.append(run.step(name, perform, name))
            if death == 3:
                raise Killed
            return results

    with pytest.raises(Killed):
        trip(dies_at)
    assert [result["what"] for result in trip(-1)] == performed == ["book", "charge", "mail"]
    assert looked == []


def not_done() -> Any:
    from kvworker.durable import not_done as answer  # noqa: PLC0415 - shadowed by this helper

    return answer


def test_a_step_that_was_interrupted_is_unknown(store: InlineKeyValueStore) -> None:
    performed, perform = effects()
    for error in (Killed, EffectUnknownError):
        with pytest.raises(error), store.run("run-7") as run:
            run.step("book", perform, "book")
            run.step("charge", lambda: perform("charge", fails=Killed()))
    assert performed == ["book", "charge"]


def test_another_step_in_the_place_of_a_recorded_one_is_refused(store: InlineKeyValueStore) -> None:
    performed, perform = effects()
    with store.run("run-7") as run:
        run.step("book", perform, "book")
        run.step("charge", perform, "charge")
    for steps in ([("reserve", "book")], [("book", "other")], [("book", "book"), ("charge", "other")]):
        with pytest.raises(IdempotencyConflictError), store.run("run-7") as run:
            for name, argument in steps:
                run.step(name, perform, argument)
    assert performed == ["book", "charge"]


def test_a_step_whose_function_does_not_take_its_arguments_does_not_begin(store: InlineKeyValueStore) -> None:
    run = store.run("run-7")
    with pytest.raises(TypeError, match="lease_seconds"):
        run.step("charge", lambda cents: cents, 5, lease_seconds=3)
    assert store.step_status("runs", "run-7/000001").state == "absent"
    assert run.step("charge", lambda cents: cents, 5) == 5
    assert run.step("largest", max, 1, 2) == 2


def test_a_recorded_failure_keeps_its_place(store: InlineKeyValueStore) -> None:
    performed, perform = effects()
    for _ in range(2):
        with store.run("run-7", record=LookupError) as run:
            with pytest.raises(LookupError, match="sold out"):
                run.step("book", lambda: perform("book", fails=LookupError("sold out")))
            assert run.step("book elsewhere", perform, "elsewhere")["number"] == 2
    assert performed == ["book", "elsewhere"]
    with pytest.raises(StepFailedError), store.run("run-7") as other:
        other.step("book", print)


def test_a_result_that_is_not_json_ends_the_step_without_it(store: InlineKeyValueStore) -> None:
    for _ in range(2):
        with pytest.raises(StepUnrecordedError), store.run("run-7") as run:
            run.step("book", object)


def test_a_full_quota_is_told_when_the_next_step_begins_and_nothing_runs_again(store: InlineKeyValueStore) -> None:
    performed, perform = effects()
    store.set_quota("runs", 1000)

    def trip() -> None:
        with store.run("run-7") as run:
            run.step("search", lambda: (perform("search"), "x" * 1000)[1])
            run.step("book", perform, "book")

    for _ in range(2):
        with pytest.raises(StepUnrecordedError):
            trip()
    assert performed == ["search"]


def test_a_run_that_lost_its_step_stops(store: InlineKeyValueStore) -> None:
    performed, perform = effects()
    with pytest.raises(StepLostError), store.run("run-7") as run:
        run.step("book", perform, "book")
        store.delete("runs", "run-7/000001")
        run.step("charge", perform, "charge")
    assert performed == ["book"]


def test_a_run_is_performed_by_one_process_and_one_step_at_a_time(store: InlineKeyValueStore) -> None:
    running, may_end = threading.Event(), threading.Event()

    def slow() -> str:
        running.set()
        assert may_end.wait(60)
        return "done"

    run = store.run("run-7")
    thread = threading.Thread(target=run.step, args=("slow", slow))
    thread.start()
    assert running.wait(60)
    with pytest.raises(InvalidRequestError, match="one after the other"):
        run.step("other", print)
    with pytest.raises(StepInProgressError):
        store.run("run-7").step("slow", slow)
    may_end.set()
    thread.join(60)
    assert store.run("run-7").step("slow", slow) == "done"


def test_wrong_uses_are_refused(store: InlineKeyValueStore) -> None:
    _, perform = effects()
    for name in ("", "  ", 7, "x" * 1024):
        with pytest.raises(InvalidRequestError):
            store.run(name)  # type: ignore[arg-type]
    with store.run("run-7") as run:
        run.step("first", perform, "first")
        with pytest.raises(InvalidRequestError, match=r"step 'wrong' is not a JSON value.*functools\.partial"):
            run.step("wrong", perform, object())
        assert run.step("second", perform, "second")["number"] == 2


def test_coroutines_have_the_same_runs(store: InlineKeyValueStore, messages: Messages) -> None:
    performed, perform = effects()

    async def book(what: str) -> Any:
        await asyncio.sleep(0)
        return perform(what)

    async def trip(inline: AsyncKeyValueStore, pause: float = 0.0) -> list[Any]:
        async with inline.run("run-7") as run:
            results = []
            for name in ("book", "charge", "mail"):
                results.append(await run.step(name, book, name))
                await asyncio.sleep(pause)
            return results

    async def check() -> None:
        inline = AsyncInline(store)
        first = await trip(inline)
        assert messages.take() == ["step_begin", "batch", "batch", "step_finish"]
        assert await trip(inline) == first
        assert messages.take() == ["step_begin", "get", "get"]
        store.clear("runs")
        messages.take()
        await trip(inline, pause=2 * HOLD_BACK_SECONDS)
        assert messages.take() == ["step_begin", "step_finish"] * 3

    asyncio.run(check())
    assert performed == ["book", "charge", "mail"] * 2


class AsyncInline(AsyncKeyValueStore):
    """The methods of the asynchronous facade on a store without a queue."""

    def __init__(self, store: InlineKeyValueStore) -> None:
        self._inline = store

    async def call_tool(self, tool: Tool, arguments: Any, timeout: float | None) -> Any:
        await asyncio.sleep(0)
        return self._inline.call_tool(tool, arguments, timeout)
