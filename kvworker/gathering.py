"""Calls of several threads in one message: those that come while others are under way.

A message costs the queue ten times what the database takes for a call. So while two messages of a process are under
way, further calls of its threads wait for the first answer, and go together. A call that is alone is sent at once,
and none waits for others longer than a moment. A worker takes what it can of such a message in one transaction; the
rest comes back as nobody's, and each goes as the message of its own that it would have been in the first place. So
nothing else changes: every call has its own operation id, deadline, policy check and result.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, Final, Protocol

from celery import states

from kvworker.outgoing import Message
from kvworker.tools import Tool
from kvworker.wire import TOGETHER_TASK, encode_together

#: How long a call waits for others at most.
LINGER_SECONDS: Final = 0.005
#: With so many messages under way, calls are gathered: workers have one to take, and one to work on.
_ENOUGH: Final = 2
_MAX_CALLS: Final = 32
#: Of text in a value; what is larger goes by itself.
_SMALL: Final = 4096

_GATHERED: Final = frozenset({"kv_get", "kv_set", "kv_delete", "kv_increment"})
#: What takes a look at the entry first, for which a worker needs a transaction of its own.
_CONDITIONS: Final = frozenset({"expected_version", "if_absent", "keep_ttl"})


def may_be_gathered(tool: Tool, arguments: Mapping[str, Any]) -> bool:
    """Whether a call with checked arguments is one that a worker takes together with others, and small."""
    if tool.name not in _GATHERED or not _CONDITIONS.isdisjoint(arguments):
        return False
    return _left_of(_SMALL, arguments.get("value")) >= 0


class Reply(Protocol):
    """A call whose answer is awaited."""

    tool: Tool
    message: Message
    future: Future[Any]


class Together(Message):
    """Several calls as one message. Whatever happens to it happens to those of them that are still wanted."""

    def __init__(self, task_id: str, replies: Sequence[Reply]) -> None:
        self._replies = replies
        self._written: list[Reply] = []
        first = replies[0].message
        super().__init__(
            task_name=TOGETHER_TASK,
            task_id=task_id,
            payload={},
            description=f"{len(replies)} calls, the first {first.description}",
            give_up_at=max(reply.message.give_up_at for reply in replies),
        )

    def body(self) -> dict[str, Any]:
        """The payloads of those that are still wanted."""
        return encode_together({one.message.task_id: (one.tool, one.message.payload) for one in self._written})

    def fail(self, problem: str) -> None:
        """Note what went wrong with each."""
        for reply in self._replies:
            reply.message.fail(problem)

    def begin_writing(self) -> bool:
        """Note that the broker may have them from now on; False if all callers have given up."""
        self._written = [reply for reply in self._replies if reply.message.begin_writing()]
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
    """The answer to several calls, which hands each its own."""

    def __init__(self, message: Together, replies: Sequence[Reply], send_alone: Callable[[Message], None]) -> None:
        self.message = message
        self.future: Future[Any] = Future()
        self._replies = replies
        self._send_alone = send_alone
        self.future.add_done_callback(self._hand_out)

    def _hand_out(self, answered: Future[Any]) -> None:
        meta = answered.result()
        given = meta["result"] if meta["status"] == states.SUCCESS else None
        results = given.get("results") if isinstance(given, dict) else None
        for reply in self._replies:
            result = results.get(reply.message.task_id) if isinstance(results, dict) else None
            if result is None:
                self._send_alone(reply.message)
            else:
                with contextlib.suppress(InvalidStateError):  # an answer to a copy of its own came first
                    reply.future.set_result({"status": states.SUCCESS, "result": result})


class Gatherer:
    """Decides which calls of a process wait for others, and has them sent. Thread-safe."""

    def __init__(self, send: Callable[[list[Any], bool], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waiting: list[Reply] = []
        self._under_way: dict[str, Any] = {}

    def keeps(self, reply: Reply) -> bool:
        """Whether a call waits here for others; else it is to be sent now."""
        with self._lock:
            if len(self._under_way) >= _ENOUGH:
                # What was never answered is under way no longer.
                self._under_way = {i: one for i, one in self._under_way.items() if one.message.remaining_seconds()}
            if len(self._under_way) >= _ENOUGH:
                self._waiting.append(reply)
                return True
        self.begin(reply)
        return False

    def begin(self, reply: Any) -> None:
        """Count a message as under way until it is answered."""
        with self._lock:
            self._under_way[reply.message.task_id] = reply
        reply.future.add_done_callback(partial(self._end, reply.message.task_id))

    def send_waiting(self, *, may_wait: bool) -> None:
        """Send all calls that wait; ``may_wait`` allows to wait for the broker here."""
        while True:
            with self._lock:
                replies, self._waiting = self._waiting[:_MAX_CALLS], self._waiting[_MAX_CALLS:]
            if not replies:
                return
            self._send(replies, may_wait)

    def _end(self, task_id: str, _: Future[Any]) -> None:
        with self._lock:
            self._under_way.pop(task_id, None)
        self.send_waiting(may_wait=False)


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
