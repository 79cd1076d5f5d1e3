"""The bound on a process's calls in flight. Further calls wait here for their turn, and are not sent meanwhile.

Without a bound, a burst of calls becomes a queue that takes longer than their timeouts, and workers then spend their
time on calls whose callers have given up.

Calls get their turn in order, unless the oldest one has waited for half of its timeout. The process then makes more
calls than are answered in time, and turns go to the newest call first: those in turn would mostly be answered too late.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Final, Self

from kvworker.client.pending_reply import PendingReply
from kvworker.errors import OperationNotSentError
from kvworker.wording import counted

#: The least time between two looks for calls whose deadline has passed.
_LOOK_SECONDS: Final = 0.05


class _Waiter:
    """A call that waits for its turn. The lock of ``CallsInFlight`` guards ``is_waiting``."""

    __slots__ = ("half_time", "is_waiting", "wake")

    def __init__(self, half_time: float, wake: Callable[[], object]) -> None:
        self.half_time = half_time
        self.wake = wake
        self.is_waiting = True


class Turn:
    """The turn of a call, as a context manager.

    If ``reply`` is set and unanswered at the end, the call counts further, until its answer or its deadline.

    Attributes:
        seconds: The rest of the call's timeout.
        reply: The call's reply, once it is sent.
    """

    __slots__ = ("_calls", "reply", "seconds")

    def __init__(self, calls: CallsInFlight, seconds: float) -> None:
        self._calls = calls
        self.seconds = seconds
        self.reply: PendingReply | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._calls.leave(self.reply)


class CallsInFlight:
    """Counts the calls that were sent, until each is answered or its deadline has passed. Thread-safe.

    Args:
        limit: The largest number of calls. Calls that cannot wait exceed it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        #: The number of turns.
        self._turns = 0
        #: Calls after their turn. Strong references: the answer to a call whose caller forgot it must still be noticed.
        self._sent: dict[Future[object], PendingReply] = {}
        self._waiting: deque[_Waiter] = deque()
        self._look_at = 0.0

    def turn(self, timeout_seconds: float) -> Turn:
        """Wait for a turn in this thread.

        Raises:
            OperationNotSentError: The turn did not come within the timeout.
        """
        if self._enter_now():
            return Turn(self, timeout_seconds)
        give_up_at, woken = time.monotonic() + timeout_seconds, threading.Event()
        waiter = self._wait_in_line(timeout_seconds, woken.set)
        try:
            woken.wait(timeout_seconds)
        except BaseException:
            self._withdraw(waiter)
            raise
        return self._turn_of(waiter, give_up_at)

    async def turn_async(self, timeout_seconds: float) -> Turn:
        """Await a turn, like ``turn``."""
        if self._enter_now():
            return Turn(self, timeout_seconds)
        # asyncio.wait_for and wrap_future take ten times as long. Calls that are under way together delay each other.
        loop = asyncio.get_running_loop()
        give_up_at, woken = time.monotonic() + timeout_seconds, loop.create_future()
        waiter = self._wait_in_line(timeout_seconds, partial(_wake, loop, woken))
        timer = loop.call_later(timeout_seconds, _resolve, woken)
        try:
            await woken
        except BaseException:
            self._withdraw(waiter)
            raise
        finally:
            timer.cancel()
        return self._turn_of(waiter, give_up_at)

    def leave(self, reply: PendingReply | None) -> None:
        """End the turn of a call with this reply, or of one that was not sent."""
        unanswered = None if reply is None or reply.future.done() else reply
        with self._lock:
            self._turns -= 1
            if unanswered:
                self._sent[unanswered.future] = unanswered
            woken = self._next() if self._waiting else ()
        _wake_all(woken)
        if unanswered:
            unanswered.future.add_done_callback(self._answered)

    def add(self, reply: PendingReply) -> None:
        """Count a call that was sent without a turn."""
        with self._lock:
            self._sent[reply.future] = reply
        reply.future.add_done_callback(self._answered)

    def drop_overdue(self) -> None:
        """Forget unanswered calls whose deadline has passed."""
        with self._lock:
            woken = self._look()
        _wake_all(woken)

    def _enter_now(self) -> bool:
        with self._lock:
            has_turn = not self._waiting and not self._is_full()
            self._turns += has_turn
        return has_turn

    def _wait_in_line(self, timeout_seconds: float, wake: Callable[[], object]) -> _Waiter:
        waiter = _Waiter(time.monotonic() + timeout_seconds / 2, wake)
        with self._lock:
            self._waiting.append(waiter)
            woken = self._look()
        _wake_all(woken)
        return waiter

    def _turn_of(self, waiter: _Waiter, give_up_at: float) -> Turn:
        seconds = give_up_at - time.monotonic()
        if waiter.is_waiting or seconds <= 0:
            self._withdraw(waiter)
            raise OperationNotSentError(
                f"this process had {counted(self._limit, 'call')} in flight (facade.max_calls_in_flight) for its whole"
                " timeout, which is more than the workers answer: make fewer calls at a time, or run more workers"
            )
        return Turn(self, seconds)

    def _withdraw(self, waiter: _Waiter) -> None:
        with self._lock:
            self._turns -= not waiter.is_waiting
            waiter.is_waiting = False
            woken = self._next()
        _wake_all(woken)

    def _is_full(self) -> bool:
        return self._turns + len(self._sent) >= self._limit

    def _answered(self, future: Future[object]) -> None:
        with self._lock:
            is_counted = self._sent.pop(future, None) is not None
            woken = self._next() if is_counted and self._waiting else ()
        _wake_all(woken)

    def _look(self) -> Sequence[_Waiter]:
        """Forget overdue calls if it is time to look for some. Return the calls whose turn it is."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            overdue = [reply for reply in self._sent.values() if not reply.remaining_seconds()]
            for reply in overdue:
                del self._sent[reply.future]
                reply.note_overdue()
        return self._next()

    def _next(self) -> Sequence[_Waiter]:
        """Return the calls whose turn it is. Wake them once the lock is released."""
        woken: list[_Waiter] = []
        while self._waiting:
            if not self._waiting[0].is_waiting:
                self._waiting.popleft()
                continue
            if self._is_full():
                break
            is_overloaded = time.monotonic() > self._waiting[0].half_time
            waiter = self._waiting.pop() if is_overloaded else self._waiting.popleft()
            if waiter.is_waiting:
                waiter.is_waiting = False
                self._turns += 1
                woken.append(waiter)
        return woken


def _wake_all(waiters: Sequence[_Waiter]) -> None:
    for waiter in waiters:
        waiter.wake()


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(_resolve, woken)
    except RuntimeError:
        # The loop was closed while its call waited.
        return


def _resolve(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
