"""Follows calls for an observer, from their beginning until their result, their error or their deadline."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import ref

from celery import states

from kvworker.messaging.outcomes import outcome_of_error, outcome_of_success

if TYPE_CHECKING:
    from kvworker.client.pending_reply import PendingReply
    from kvworker.messaging.observer import CallObserver
    from kvworker.messaging.outcomes import Outcome
    from kvworker.model import OperationResult
    from kvworker.tools import Tool


class CallWatch:
    """A call that nobody observes, as a context manager. An error that leaves the context ends the call."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self.failed(error)

    def succeeded(self, result: OperationResult) -> None:
        """Note that the call has a result."""

    def failed(self, error: BaseException) -> None:
        """Note that the call ended with an error."""

    def submitted(self, reply: PendingReply) -> None:
        """Note that the call continues after the context, until the reply's answer or deadline."""


class _ObservedCall(CallWatch):
    """A call that an observer is told of, once it has ended."""

    __slots__ = ("_began", "_observer", "_open", "_tool")

    def __init__(self, observer: CallObserver, tool: Tool) -> None:
        self._observer = observer
        self._tool = tool
        # Popping is atomic, so only one thread ends the call: an answer may come at its deadline.
        self._open = [True]
        self._began = time.monotonic()
        observer.call_began(tool)

    def succeeded(self, result: OperationResult) -> None:
        """Tell that the call has a result."""
        self._end(outcome_of_success(writes=self._tool.writes, replayed=getattr(result, "replayed", False)))

    def failed(self, error: BaseException) -> None:
        """Tell that the call ended with an error."""
        self._end(outcome_of_error(error, writes=self._tool.writes))

    def submitted(self, reply: PendingReply) -> None:
        """Tell how the call ends when its answer arrives, or its deadline passes without one."""
        reply.watch = self
        # The future must not refer to its reply, or only the garbage collector could free both.
        weak = ref(reply)
        reply.future.add_done_callback(lambda future: self._answered(weak(), future))

    def _answered(self, reply: PendingReply | None, future: Future[Any]) -> None:
        if error := future.exception():
            self.failed(error)
        elif reply is not None and (meta := future.result())["status"] != states.SUCCESS:
            self.failed(reply.failure(meta))
        else:
            result = future.result()["result"]
            replayed = isinstance(result, dict) and bool(result.get("replayed"))
            self._end(outcome_of_success(writes=self._tool.writes, replayed=replayed))

    def _end(self, outcome: Outcome) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        self._observer.call_ended(self._tool, outcome, time.monotonic() - self._began)


#: The watch of every call that nobody observes.
UNWATCHED: Final = CallWatch()


def watch_call(observer: CallObserver | None, tool: Tool) -> CallWatch:
    """Begin to follow a call.

    Args:
        observer: Whom to tell; None for nobody.
        tool: The call's tool.
    """
    return UNWATCHED if observer is None else _ObservedCall(observer, tool)
