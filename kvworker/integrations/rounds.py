"""Logic of several calls, written once for the synchronous and the asynchronous facade.

Such logic is a generator. It yields a round: the calls that can be made at the same time. It is sent their outcomes, in
the same order, and may yield further rounds that depend on them. In the end it returns its result. The generator itself
does no input or output, so it needs no ``async`` twin: ``run`` makes its calls on a synchronous facade, and
``run_async`` on the asynchronous one.
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
    """A call of a tool with its arguments."""

    tool: str
    arguments: Mapping[str, Any]


#: The result of a call, or the ``KVStoreError`` that it raised.
Outcome: TypeAlias = Any

#: A generator of rounds, as the module describes.
Rounds: TypeAlias = Generator[list[Call], list[Outcome], _Result]


def make_call(call: Call) -> Rounds[Any]:
    """Make one call in a separate round and return its result.

    Raises:
        KVStoreError: The call failed.
    """
    (outcome,) = yield [call]
    return result_of(outcome)


def result_of(outcome: Outcome) -> Any:
    """Return the result of a call.

    Raises:
        KVStoreError: The call failed.
    """
    if isinstance(outcome, KVStoreError):
        raise outcome
    return outcome


def chunked(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    """Split the items into consecutive chunks of at most ``size``."""
    return (items[start : start + size] for start in range(0, len(items), size))


def in_parallel(generators: Iterable[Rounds[_Result]]) -> Rounds[list[_Result]]:
    """Run generators side by side: each round holds the next round of all that have not ended.

    Returns:
        Their results, in the order of the generators.
    """
    started = list(generators)
    results: dict[int, _Result] = {}
    rounds: dict[int, list[Call]] = {}

    def advance(index: int, outcomes: list[Outcome] | None) -> None:
        """Resume a generator with the outcomes of its calls, and keep its next round or its result."""
        generator = started[index]
        try:
            rounds[index] = next(generator) if outcomes is None else generator.send(outcomes)
        except StopIteration as ended:
            results[index] = ended.value

    for index in range(len(started)):
        advance(index, None)
    while rounds:
        current = dict(rounds)
        rounds.clear()
        outcomes = iter((yield [call for calls in current.values() for call in calls]))
        for index, calls in current.items():
            advance(index, list(islice(outcomes, len(calls))))
    return [results[index] for index in range(len(started))]


def run(rounds: Rounds[_Result], store: KeyValueOperations, timeout: float | None) -> _Result:
    """Run the rounds on a synchronous facade and return their result.

    Args:
        rounds: The generator to run.
        store: The facade to call.
        timeout: Seconds for each call; None for the store's own timeout.

    Raises:
        NestedCallError: This is a task of the store's own worker. Nothing was sent.
        KVStoreError: A call failed, and the generator did not handle it.
    """
    if isinstance(store, KeyValueStore):
        store.dispatcher().check_not_nested()
    try:
        calls = next(rounds)
        while True:
            # All calls of the round are sent before the first result is awaited.
            pending = [_submit(store, call, timeout) for call in calls]
            calls = rounds.send([_await_outcome(each) for each in pending])
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]


async def run_async(rounds: Rounds[_Result], store: AsyncKeyValueStore, timeout: float | None) -> _Result:
    """Run the rounds on the asynchronous facade and return their result.

    Args:
        rounds: The generator to run.
        store: The facade to call.
        timeout: Seconds for each call; None for the store's own timeout.

    Raises:
        KVStoreError: A call failed, and the generator did not handle it.
    """
    try:
        calls = next(rounds)
        while True:
            calls = rounds.send(await asyncio.gather(*(_call(store, call, timeout) for call in calls)))
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]


def run_blocking(coroutine: Coroutine[Any, Any, _Result], instead: str) -> _Result:
    """Run a coroutine on a new event loop and return its result.

    Args:
        coroutine: The coroutine to run.
        instead: The method to call inside an event loop, for the error message.

    Raises:
        asyncio.InvalidStateError: An event loop is running in this thread. The call would block it.
    """
    if _is_loop_running():
        coroutine.close()
        raise asyncio.InvalidStateError(f"a synchronous call would block the running event loop: use {instead}")
    # asyncio.run would unset the thread's current loop, if it has one.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def _is_loop_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _submit(store: KeyValueOperations, call: Call, timeout: float | None) -> PendingResult | KVStoreError:
    try:
        return store.submit(call.tool, call.arguments, timeout=timeout)
    except KVStoreError as error:
        return error


def _await_outcome(pending: PendingResult | KVStoreError) -> Outcome:
    if isinstance(pending, KVStoreError):
        return pending
    try:
        return pending.result()
    except KVStoreError as error:
        return error


async def _call(store: AsyncKeyValueStore, call: Call, timeout: float | None) -> Outcome:
    try:
        return await store.call_tool(find_tool(call.tool), call.arguments, timeout)
    except KVStoreError as error:
        return error
