"""Calls of several threads in one message: those that come while others are under way.

A message costs the queue ten times what the database takes for a call. So where several threads of a process call,
those that come while a message is under way wait for its answer, and then go together. A call that is alone is sent
at once, and none waits longer than a moment. A worker takes what it can of such a message in one transaction; the
rest comes back untaken, and each goes as the message of its own that it would have been in the first place. So
nothing else changes: every call has its own operation id, deadline, policy check and result.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, Final, Protocol

from celery import states

from kvworker.client.transport.message import Message
from kvworker.messaging.wire import APPLY_MANY_TASK, encode_many
from kvworker.tools import Tool

#: How long a call waits for others at most.
MAX_DELAY_SECONDS: Final = 0.01
#: With fewer calls at a time each is sooner answered by itself: messages then overlap.
_MANY: Final = 4
#: For how long that many calls at a time let more be expected.
_EXPECTED_SECONDS: Final = 0.1
#: What one transaction holds at most.
_MAX_CALLS: Final = 32
#: How long calls go by themselves after a worker has taken none of those that went together.
_FIRST_PAUSE_SECONDS: Final = 0.1
_MAX_PAUSE_SECONDS: Final = 60.0
#: Of text in a value; what is larger goes by itself.
_SMALL: Final = 4096

_COALESCABLE: Final = frozenset({"kv_get", "kv_set", "kv_delete", "kv_increment"})
#: What takes a look at the entry first, for which a worker needs a transaction of its own.
_CONDITIONS: Final = frozenset({"expected_version", "if_absent", "keep_ttl"})


def is_coalescable(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Whether a call with checked arguments is one that a worker takes together with others, and small."""
    if tool.name not in _COALESCABLE or not _CONDITIONS.isdisjoint(arguments):
        return False
    return _left_of(_SMALL, arguments.get("value")) >= 0


class Reply(Protocol):
    """A call whose answer is awaited."""

    tool: Tool
    provider: str
    message: Message
    future: Future[Any]


class CoalescedMessage(Message):
    """Several calls as one message. Whatever happens to it happens to those of them that are still wanted."""

    def __init__(self, task_id: str, replies: Sequence[Reply]) -> None:
        self._replies = replies
        self._written: list[Reply] = []
        first = replies[0].message
        super().__init__(
            task_name=APPLY_MANY_TASK,
            task_id=task_id,
            payload={},
            description=f"{len(replies)} calls, the first {first.description}",
            give_up_at=max(reply.message.give_up_at for reply in replies),
        )

    def body(self) -> dict[str, Any]:
        """The payloads of those that are still wanted."""
        return encode_many({one.message.task_id: (one.tool, one.message.payload) for one in self._written})

    def fail(self, problem: str) -> None:
        """Note what went wrong with each."""
        for reply in self._replies:
            reply.message.fail(problem)

    def tag(self, delivery_tag: str) -> None:
        """Note what the broker is to call the copy that is being sent."""
        for reply in self._written:
            reply.message.tag(delivery_tag)

    def begin_writing(self) -> bool:
        """Note that the broker may have them from now on; False if all callers have given up."""
        self._written = [reply for reply in self._replies if reply.message.begin_writing()]
        # The answer may come before the end of this, and say that they were not taken.
        self.end_sending()
        return bool(self._written)

    def nothing_written(self) -> None:
        """Take ``begin_writing`` back."""
        for reply in self._written:
            reply.message.nothing_written()

    def end_sending(self) -> None:
        """Let each be sent by itself."""
        for reply in self._replies:
            reply.message.end_sending()


class GroupReply:
    """The answer to several calls, which hands each its own; ``on_answer`` hears how many of them were taken."""

    def __init__(
        self,
        message: CoalescedMessage,
        replies: Sequence[Reply],
        send_alone: Callable[[Message], None],
        on_answer: Callable[[int], None],
    ) -> None:
        self.message = message
        self.future: Future[Any] = Future()
        self._replies = replies
        self._send_alone = send_alone
        self._on_answer = on_answer
        self.future.add_done_callback(self._hand_out)

    def _hand_out(self, answered: Future[Any]) -> None:
        # What was answered refers back to this, and would keep it and all its calls for the collector.
        replies, self._replies, self.future = self._replies, (), Future()
        results = _results_of(answered.result())
        self._on_answer(len(results))
        for reply in replies:
            result = results.get(reply.message.task_id)
            if result is None:
                self._send_alone(reply.message)
            else:
                with contextlib.suppress(InvalidStateError):  # the answer to a copy of its own came first
                    reply.future.set_result({"status": states.SUCCESS, "result": result})


class Coalescer:
    """Decides which calls of a process wait for others, and has them sent. Thread-safe."""

    def __init__(self, send: Callable[[list[Any]], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: list[Reply] = []
        #: What is not answered, by task id, and of how many calls each message is. Of the answer to several, this is
        #: the only reference.
        self._under_way: dict[str, tuple[Reply | GroupReply, int]] = {}
        self._many_until = 0.0
        self._pause_seconds = _FIRST_PAUSE_SECONDS
        self._paused_until = 0.0

    def holds(self, reply: Reply) -> bool:
        """Whether a call waits here for others; else it is to be sent now."""
        now = time.monotonic()
        with self._lock:
            if self._expects_many(now) and self._under_way and now >= self._paused_until:
                self._waiting.append(reply)
                return True
        self.begin(reply)
        return False

    def begin(self, reply: Reply | GroupReply, calls: int = 1) -> None:
        """Count a message as under way until it is answered, or its time is over."""
        task_id = reply.message.task_id
        with self._lock:
            self._under_way[task_id] = reply, calls
        reply.future.add_done_callback(lambda _: self._end(task_id))

    def send_waiting(self) -> None:
        """Send all calls that wait."""
        while replies := self._take_waiting():
            try:
                self._send(replies)
            except BaseException:
                # It is one caller that was interrupted; the others' calls are to be sent all the same.
                with self._lock:
                    self._waiting[:0] = replies
                raise

    def learn(self, taken: int) -> None:
        """Hear how many calls of a message were taken: a worker or a store that takes none is not soon asked again."""
        if taken:
            self._pause_seconds = _FIRST_PAUSE_SECONDS
            return
        self._paused_until = time.monotonic() + self._pause_seconds
        self._pause_seconds = min(self._pause_seconds * 2, _MAX_PAUSE_SECONDS)

    def _take_waiting(self) -> list[Reply]:
        """Take calls that may go together: of one provider, since one that is stuck must not keep another's."""
        with self._lock:
            provider = self._waiting[0].provider if self._waiting else ""
            taken = [reply for reply in self._waiting if reply.provider == provider][:_MAX_CALLS]
            self._waiting = [reply for reply in self._waiting if reply not in taken]
        return taken

    def _expects_many(self, now: float) -> bool:
        calls = 1 + len(self._waiting) + sum(count for _, count in self._under_way.values())
        if calls >= _MANY:
            # What was never answered is under way no longer.
            self._under_way = {i: one for i, one in self._under_way.items() if one[0].message.remaining_seconds()}
            self._many_until = now + _EXPECTED_SECONDS
        return now < self._many_until

    def _end(self, task_id: str) -> None:
        with self._lock:
            self._under_way.pop(task_id, None)
        self.send_waiting()


def _results_of(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """The results of the calls that were taken, by their task ids."""
    given = meta["result"] if meta["status"] == states.SUCCESS else None
    results = given.get("results") if isinstance(given, dict) else None
    return results if isinstance(results, dict) else {}


def _left_of(budget: int, value: object) -> int:
    """What is left of a number of characters when a value has taken its part; a negative number is too little."""
    if isinstance(value, str):
        return budget - len(value)
    if isinstance(value, dict | list):
        for part in value.items() if isinstance(value, dict) else value:
            if budget < 0:
                break
            budget = _left_of(budget - 1, list(part) if isinstance(part, tuple) else part)
    return budget
