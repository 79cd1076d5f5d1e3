"""Coalescing: sends calls that several threads make at the same time as one message.

A message costs the queue ten times what the call costs the database. So while messages are in flight, further calls are
held back; the next answer that arrives sends them all as one message. A call that finds nothing in flight is sent at
once, and no call is held for longer than ``MAX_DELAY_SECONDS``.

A worker applies as many of the calls as it can in one transaction, and leaves out the others. Each of those is then
sent individually. So callers notice no difference: every call keeps its own operation id, deadline, policy check and
result.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final

from celery import states

from kvworker.client.pending_reply import PendingReply
from kvworker.client.transport.message import Message
from kvworker.messaging.wire import APPLY_MANY_TASK, LATE, encode_many
from kvworker.tools import Tool
from kvworker.tracing import combined_trace

#: The longest time for which a call is held back.
MAX_DELAY_SECONDS: Final = 0.01
#: Below this number of concurrent calls, coalescing is slower, since their messages overlap.
_MIN_CONCURRENT_CALLS: Final = 4
#: The assumed length of a burst of concurrent calls.
_BURST_SECONDS: Final = 0.1
#: The most calls in one message, which are applied in one transaction.
_MAX_CALLS: Final = 32
#: The time for which the circuit breaker opens, at first and at most.
_FIRST_OPEN_SECONDS: Final = 0.1
_MAX_OPEN_SECONDS: Final = 60.0
#: A call whose value has more characters than this as JSON is sent individually.
_MAX_VALUE_CHARACTERS: Final = 4096

_COALESCABLE: Final = frozenset({"kv_get", "kv_set", "kv_delete", "kv_increment"})
#: Arguments that make a worker read the entry first, which needs a separate transaction.
_CONDITIONS: Final = frozenset({"expected_version", "if_absent", "keep_ttl"})


def is_coalescable(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Return whether a worker can apply this call together with others.

    Args:
        tool: The tool.
        arguments: Its checked arguments.
    """
    if tool.name not in _COALESCABLE or not _CONDITIONS.isdisjoint(arguments):
        return False
    return "value" not in arguments or len(arguments["value"].text) <= _MAX_VALUE_CHARACTERS


class CoalescedMessage(Message):
    """Several calls as one message. Whatever it records, it records in the messages of its calls."""

    def __init__(self, task_id: str, replies: Sequence[PendingReply]) -> None:
        self._replies = replies
        #: The calls that were not abandoned when writing began.
        self._written: list[PendingReply] = []
        first, last = replies[0].message, max((reply.message for reply in replies), key=lambda each: each.give_up_at)
        super().__init__(
            task_name=APPLY_MANY_TASK,
            task_id=task_id,
            payload={},
            description=f"{len(replies)} calls, the first {first.description}",
            give_up_at=last.give_up_at,
            # The calls know which of them have an operation id that another message may have.
            trace=combined_trace([reply.message.trace for reply in replies]),
            waiting_header={name: moment for name, moment in last.waiting_header.items() if name != "operation_id"},
        )

    def body(self) -> dict[str, Any]:
        """Return the payloads of the calls to write."""
        return encode_many({reply.message.task_id: (reply.tool, reply.message.payload) for reply in self._written})

    def record_problem(self, problem: str) -> None:
        """Record in each call's message why an attempt failed."""
        for reply in self._replies:
            reply.message.record_problem(problem)

    def record_delivery_tag(self, delivery_tag: str) -> None:
        """Record the delivery tag in the message of each call that is about to be written."""
        for reply in self._written:
            reply.message.record_delivery_tag(delivery_tag)

    def begin_write(self) -> bool:
        """Count a copy of each call that was not abandoned. False if there is none."""
        self._written = [reply for reply in self._replies if reply.message.begin_write()]
        # The answer may come before this attempt returns, and send calls individually.
        self.allow_resend()
        return bool(self._written)

    def undo_write(self) -> None:
        """Take back ``begin_write`` for each call."""
        for reply in self._written:
            reply.message.undo_write()

    def allow_resend(self) -> None:
        """Let each call be sent individually."""
        for reply in self._replies:
            reply.message.allow_resend()


class GroupReply:
    """The awaited answer to a coalesced message. When it arrives, each call gets its own result.

    Args:
        message: The coalesced message.
        replies: The calls in it.
        send_individually: Sends a call that the worker did not apply.
        on_answer: Called with the number of calls that the worker applied.
    """

    def __init__(
        self,
        message: CoalescedMessage,
        replies: Sequence[PendingReply],
        send_individually: Callable[[Message], None],
        on_answer: Callable[[int], None],
    ) -> None:
        self.message = message
        self.future: Future[Any] = Future()
        self._replies = replies
        self._send_individually = send_individually
        self._on_answer = on_answer
        self.future.add_done_callback(self._distribute)

    def refuse(self) -> None:
        """End each call with an error, because the broker refuses this program's login."""
        for reply in self._replies:
            reply.refuse()

    def _distribute(self, answered: Future[Any]) -> None:
        # The answered future refers to this object through the callback. Without these references dropped, both and
        # all their calls would stay until the garbage collector finds the cycle.
        replies, self._replies, self.future = self._replies, (), Future()
        answer = _answer_of(answered.result())
        if answer.get(LATE) is True:
            for reply in replies:
                _resolve(reply, reply.expired())
            return
        results = answer["results"]
        self._on_answer(len(results))
        for reply in replies:
            result = results.get(reply.message.task_id)
            if result is None:
                self._send_individually(reply.message)
            else:
                _resolve(reply, {"status": states.SUCCESS, "result": result})


class _CircuitBreaker:
    """Stops coalescing while workers apply none of the coalesced calls, as an older worker or a busy store would.

    Each coalesced message without an applied call doubles the time for which it stays open.
    """

    def __init__(self) -> None:
        self._open_until = 0.0
        self._open_seconds = _FIRST_OPEN_SECONDS

    def is_closed(self, now: float) -> bool:
        """Tell whether calls may be coalesced at this monotonic instant."""
        return now >= self._open_until

    def record_outcome(self, applied_calls: int) -> None:
        """Close after a message with applied calls; open for longer after one without."""
        if applied_calls:
            self._open_seconds = _FIRST_OPEN_SECONDS
            return
        self._open_until = time.monotonic() + self._open_seconds
        self._open_seconds = min(self._open_seconds * 2, _MAX_OPEN_SECONDS)


class Coalescer:
    """Decides which calls of a process are held back, and sends those. Thread-safe.

    Args:
        send: Sends the calls of a list as one message. Must not wait.
    """

    def __init__(self, send: Callable[[list[PendingReply]], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._held: list[PendingReply] = []
        #: In-flight messages by task id, each with its number of calls. The only strong reference to a group's reply.
        self._in_flight: dict[str, tuple[PendingReply | GroupReply, int]] = {}
        self._burst_until = 0.0
        self._breaker = _CircuitBreaker()

    def hold(self, reply: PendingReply) -> bool:
        """Hold a call back if that is worth it. False if it must be sent now; it then counts as in flight."""
        now = time.monotonic()
        with self._lock:
            if self._is_burst(now) and self._in_flight and self._breaker.is_closed(now):
                self._held.append(reply)
                return True
        self.track(reply)
        return False

    def track(self, reply: PendingReply | GroupReply, calls: int = 1) -> None:
        """Count a message of so many calls as in flight, until it is answered or its deadline has passed."""
        task_id = reply.message.task_id
        with self._lock:
            self._in_flight[task_id] = reply, calls
        reply.future.add_done_callback(lambda _: self._answered(task_id))

    def flush(self) -> None:
        """Send every call that is held back."""
        while replies := self._pop_held():
            try:
                self._send(replies)
            except BaseException:
                # Only this thread's caller was interrupted: the calls of the others must still be sent.
                with self._lock:
                    self._held[:0] = replies
                raise

    def record_outcome(self, applied_calls: int) -> None:
        """Record how many calls of a coalesced message a worker applied. None pauses coalescing for a while."""
        self._breaker.record_outcome(applied_calls)

    def _pop_held(self) -> list[PendingReply]:
        """Pop held calls for one message. All have the same provider, so a stuck one delays no other's calls."""
        with self._lock:
            provider = self._held[0].provider if self._held else ""
            popped = [reply for reply in self._held if reply.provider == provider][:_MAX_CALLS]
            self._held = [reply for reply in self._held if reply not in popped]
        return popped

    def _is_burst(self, now: float) -> bool:
        calls = 1 + len(self._held) + sum(count for _, count in self._in_flight.values())
        if calls >= _MIN_CONCURRENT_CALLS:
            # Messages that were never answered no longer count.
            self._in_flight = {i: sent for i, sent in self._in_flight.items() if sent[0].message.remaining_seconds()}
            self._burst_until = now + _BURST_SECONDS
        return now < self._burst_until

    def _answered(self, task_id: str) -> None:
        with self._lock:
            self._in_flight.pop(task_id, None)
        self.flush()


def _answer_of(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the worker answered, with a dict of ``results`` by task id."""
    answer = meta["result"] if meta["status"] == states.SUCCESS else None
    if isinstance(answer, dict) and isinstance(answer.get("results"), dict):
        return answer
    return {"results": {}}


def _resolve(reply: PendingReply, meta: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidStateError):  # the answer to an individual copy came first
        reply.future.set_result(meta)
