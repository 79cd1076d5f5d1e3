"""The bound on calls in flight: who gets the next turn, and what ends one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from kvworker import OperationNotSentError
from kvworker.client.in_flight import CallsInFlight
from kvworker.client.pending_reply import PendingReply
from kvworker.client.transport.message import Message
from kvworker.tools import TOOLS
from tests.support.processes import wait_until


def sent_call(seconds: float = 60.0) -> PendingReply:
    return PendingReply(TOOLS["kv_get"], "id", Message("task", "id", {}, "", give_up_at=time.monotonic() + seconds))


def send(calls: CallsInFlight, timeout: float = 60.0, lifetime: float = 60.0) -> PendingReply:
    with calls.turn(timeout) as turn:
        turn.reply = sent_call(lifetime)
    return turn.reply


def test_a_call_beyond_the_limit_waits_for_an_answer() -> None:
    calls = CallsInFlight(2)
    first, _ = send(calls), send(calls)
    with ThreadPoolExecutor(1) as thread:
        third = thread.submit(send, calls)
        wait_until(lambda: calls._waiting, what="the third call in line")
        assert not third.done()
        first.future.set_result({})
        assert third.result(timeout=60)


def test_a_call_whose_turn_does_not_come_says_that_nothing_was_sent_and_takes_no_turn_later() -> None:
    calls = CallsInFlight(1)
    first = send(calls)
    with pytest.raises(
        OperationNotSentError, match=r"this attempt was not sent, so it applied nothing.*facade.max_calls_in_flight"
    ):
        send(calls, timeout=0.01)
    first.future.set_result({})
    assert send(calls)
    assert calls._turns == 0


def test_a_failed_call_gives_its_turn_back() -> None:
    calls = CallsInFlight(1)
    for _ in range(3):
        with contextlib.suppress(ValueError), calls.turn(60.0):
            raise ValueError


def test_an_unanswered_call_counts_until_its_deadline() -> None:
    calls = CallsInFlight(1)
    send(calls, lifetime=0.3)
    with ThreadPoolExecutor(1) as thread:
        second = thread.submit(send, calls)

        def ends() -> bool:
            calls.drop_overdue()
            return second.done()

        wait_until(ends, what="the second call's turn")


@pytest.mark.parametrize(("timeout", "expected"), [(1000.0, [0, 1, 2, 3]), (0.02, [3, 2, 1, 0])], ids=["calm", "late"])
def test_turns_come_in_order_unless_the_oldest_call_has_waited_for_half_of_its_timeout(
    timeout: float, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = CallsInFlight(1)
    first, order = send(calls), list[int]()
    waiters = [calls._wait_in_line(timeout, partial(order.append, number)) for number in range(4)]
    time.sleep(0.02)
    first.future.set_result({})
    for _ in waiters[1:]:
        calls.leave(None)
    assert order == expected


def _gathered(calls: CallsInFlight, use: Callable[[], Any]) -> list[Any]:
    async def one() -> Any:
        with await calls.turn_async(60.0):
            return await use()

    async def run() -> list[Any]:
        return await asyncio.gather(*(one() for _ in range(50)))

    return asyncio.run(run())


def test_coroutines_have_turns_too() -> None:
    calls, running = CallsInFlight(3), list[int]()

    async def use() -> int:
        running.append(1)
        count = len(running)
        await asyncio.sleep(0)
        running.pop()
        return count

    assert max(_gathered(calls, use)) == 3
    assert calls._turns == 0


def test_a_cancelled_coroutine_leaves_the_line() -> None:
    async def run() -> None:
        calls = CallsInFlight(1)
        first = await calls.turn_async(60.0)
        others = [asyncio.ensure_future(calls.turn_async(60.0)) for _ in range(2)]
        await asyncio.sleep(0)
        others[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await others[0]
        calls.leave(first.reply)
        assert (await others[1]).seconds > 0
        with pytest.raises(OperationNotSentError):
            await calls.turn_async(0.01)

    asyncio.run(run())
