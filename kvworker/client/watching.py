"""Follows calls for an observer, from their beginning until their result, their error or their deadline."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Self
from weakref import ref

from celery import states

from kvworker import tracing
from kvworker.messaging.observer import CallObserver
from kvworker.messaging.outcomes import outcome_of_error, outcome_of_success

if TYPE_CHECKING:
    from kvworker.client.pending_reply import PendingReply
    from kvworker.messaging.outcomes import Outcome
    from kvworker.model import OperationResult
    from kvworker.tools import Tool
    from kvworker.tracing.spans import RunningSpan


class CallWatch:
    """A call without an observer, as a context manager. An error that leaves the context ends the call."""

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
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        self._observer.call_ended(self._tool, outcome, time.monotonic() - self._began)


class _TracedCall(_ObservedCall):
    """The same for a call that has a span, which is current in the context."""

    __slots__ = ("_error", "_span")

    def __init__(self, observer: CallObserver, tool: Tool, span: RunningSpan) -> None:
        super().__init__(observer, tool)
        self._span = span
        self._error: BaseException | None = None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._span.leave()
        super().__exit__(kind, error, traceback)

    def failed(self, error: BaseException) -> None:
        """Tell that the call ended with an error."""
        self._error = error
        super().failed(error)

    def _tell(self, outcome: Outcome) -> None:
        super()._tell(outcome)
        self._span.end(self._error, outcome=outcome.name, reason=outcome.reason)
        self._error = None


#: The watch of every call without an observer.
UNWATCHED: Final = CallWatch()


def watch_call(observer: CallObserver | None, tool: Tool, *, queued: bool = True) -> CallWatch:
    """Begin to follow a call.

    Args:
        observer: The observer to notify; None to notify none.
        tool: The call's tool.
        queued: True if a worker runs it.
    """
    if tracing.active is not None:
        span = tracing.active.begin_call(tool.name, queued=queued)
        return _TracedCall(observer or CallObserver(), tool, span)
    return UNWATCHED if observer is None else _ObservedCall(observer, tool)
