"""Operations in rounds, written once for both facades: what can be asked at the same time is asked in one round.

A job is a generator that yields the calls of its next round, is sent their answers in the same order, and returns
its result. It does no input or output; ``run`` and ``run_async`` do, over a synchronous or asynchronous facade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, TypeVar

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.base import KeyValueOperations, PendingResult
from kvworker.client.sync import KeyValueStore
from kvworker.errors import KVStoreError
from kvworker.tools import find_tool

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Call:
    """A tool to call, with its arguments."""

    tool: str
    arguments: Mapping[str, Any]


#: An operation's result, or the error that it raised.
Answer: TypeAlias = Any

Job: TypeAlias = Generator[list[Call], list[Answer], _Result]


def ask(call: Call) -> Job[Any]:
    """The result of one call."""
    (answer,) = yield [call]
    return checked(answer)


def checked(answer: Answer) -> Any:
    """The answer, unless it is an error, which is raised."""
    if isinstance(answer, KVStoreError):
        raise answer
    return answer


def chunked(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """The items in their order, ``size`` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def all_of(jobs: Iterable[Job[_Result]]) -> Job[list[_Result]]:
    """The results of jobs that run side by side, their rounds at once."""
    started = list(jobs)
    results: dict[int, _Result] = {}
    asking: dict[int, list[Call]] = {}

    def advance(index: int, answers: list[Answer] | None) -> None:
        job = started[index]
        try:
            asking[index] = next(job) if answers is None else job.send(answers)
        except StopIteration as ended:
            results[index] = ended.value

    for index in range(len(started)):
        advance(index, None)
    while asking:
        asked = dict(asking)
        asking.clear()
        answers = iter((yield [call for calls in asked.values() for call in calls]))
        for index, calls in asked.items():
            advance(index, list(islice(answers, len(calls))))
    return [results[index] for index in range(len(started))]


def run(job: Job[_Result], store: KeyValueOperations, timeout: float | None) -> _Result:
    """A job's result over a synchronous facade, each call with its timeout in seconds."""
    if isinstance(store, KeyValueStore):
        # Before anything is sent: inside a task of its own worker nothing may be.
        store.dispatcher().check_not_nested()
    try:
        calls = next(job)
        while True:
            pending = [_submitted(store, call, timeout) for call in calls]
            calls = job.send([_outcome(one) for one in pending])
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]


async def run_async(job: Job[_Result], store: AsyncKeyValueStore, timeout: float | None) -> _Result:
    """A job's result over the asynchronous facade, each call with its timeout in seconds."""
    try:
        calls = next(job)
        while True:
            calls = job.send(await asyncio.gather(*(_answer(store, call, timeout) for call in calls)))
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]


def run_blocking(coroutine: Coroutine[Any, Any, _Result], instead: str) -> _Result:
    """A coroutine's result where no event loop runs, on a loop of its own.

    Raises:
        asyncio.InvalidStateError: a loop runs in this thread, which would be blocked; ``instead`` says what to call.
    """
    if _loop_is_running():
        coroutine.close()
        raise asyncio.InvalidStateError(f"a synchronous call would block the running event loop: use {instead}")
    # Not asyncio.run, which takes the thread's current loop, if it has one, away.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _submitted(store: KeyValueOperations, call: Call, timeout: float | None) -> PendingResult | KVStoreError:
    try:
        return store.submit(call.tool, call.arguments, timeout=timeout)
    except KVStoreError as error:
        return error


def _outcome(pending: PendingResult | KVStoreError) -> Answer:
    if isinstance(pending, KVStoreError):
        return pending
    try:
        return pending.result()
    except KVStoreError as error:
        return error


async def _answer(store: AsyncKeyValueStore, call: Call, timeout: float | None) -> Answer:
    try:
        return await store.call_tool(find_tool(call.tool), call.arguments, timeout)
    except KVStoreError as error:
        return error
