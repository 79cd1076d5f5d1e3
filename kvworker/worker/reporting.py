"""Reports how operations and periodic tasks ended: to the worker's observer, and operations to the log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from kvworker import tracing
from kvworker.errors import KVStoreError
from kvworker.messaging.observer import Event, MaintenanceReport, MessageReport, Observer, OperationEnd
from kvworker.messaging.outcomes import outcome_of_error, outcome_of_success
from kvworker.messaging.waiting import waited_seconds
from kvworker.messaging.wire import WAITING
from kvworker.model import BatchResult
from kvworker.worker.operation_log import is_logging, log_operations

if TYPE_CHECKING:
    from kvworker.messaging.clock import ServerClock
    from kvworker.messaging.wire import Request
    from kvworker.model import OperationResult
    from kvworker.tools import Tool
    from kvworker.tracing.spans import RunningSpan


@contextmanager
def reporting_maintenance(observer: Observer, task: str) -> Iterator[MaintenanceReport]:
    """Report a run of a periodic task when the context ends.

    Args:
        observer: Whom to tell.
        task: ``sweep``, ``prune`` or ``recompute``.

    Yields:
        The report, to be filled in.
    """
    began, report = time.monotonic(), MaintenanceReport(task, 0.0)
    try:
        yield report
    except Exception:
        report.failed = True
        raise
    finally:
        report.seconds = time.monotonic() - began
        observer.maintenance_ended(report)


class TaskReporter:
    """Reports what one message's task has done, and keeps its span, if there is one, current within a context.

    Args:
        task_request: Celery's request of the task.
        observer: Whom to tell.
        clock: The clock of deadlines.
        messaging_system: The broker's name in traces.

    Attributes:
        is_redelivered: True if the message was delivered before.
    """

    __slots__ = ("_began", "_clock", "_ended", "_messaging_system", "_observer", "_request", "_span", "is_redelivered")

    def __init__(self, task_request: Any, observer: Observer, clock: ServerClock, messaging_system: str) -> None:
        self._request = task_request
        self._observer = observer
        self._clock = clock
        self._messaging_system = messaging_system
        self._span: RunningSpan | None = None
        self._ended: MessageReport | None = None
        self._began = time.monotonic()
        self.is_redelivered = bool((task_request.delivery_info or {}).get("redelivered"))

    def __enter__(self) -> Self:
        if tracing.active is not None:
            self._span = tracing.active.begin_process(self._messaging_system, self._request)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._span is not None:
            self._span.leave()
            _end_span(self._span, self._ended or MessageReport(()))

    def succeeded(self, request: Request, result: OperationResult) -> None:
        """Report the operation of the message, which has a result."""
        self._report([_success(self._request.id, request, result)])

    def failed(self, tool: Tool, request: Request | None, error: BaseException) -> None:
        """Report the operation of the message, which raised an error; ``request`` is None if it was not admitted."""
        outcome = outcome_of_error(error, writes=tool.writes)
        self._report([OperationEnd(tool, self._request.id, outcome, request, error)])

    def applied_many(self, calls: int, requests: Mapping[str, Request], results: Mapping[str, OperationResult]) -> None:
        """Report the calls of a coalesced message that were applied, by their task ids."""
        if calls > len(results):
            self._observer.happened(Event.CALL_LEFT_OUT, calls - len(results))
        self._report([_success(task_id, requests[task_id], result) for task_id, result in results.items()], calls)

    def _report(self, operations: Sequence[OperationEnd], coalesced: int = 0) -> None:
        seconds = time.monotonic() - self._began
        report = self._ended = MessageReport(
            operations, seconds, self._waited_before(seconds), self.is_redelivered, coalesced
        )
        if is_logging():
            log_operations(report)
        if self.is_redelivered:
            self._observer.happened(Event.REDELIVERED)
        self._observer.message_ended(report)

    def _waited_before(self, seconds: float) -> float | None:
        header = getattr(self._request, WAITING, None)
        if header is None:
            return None
        self._clock.keep()
        return waited_seconds(header, self._clock.now() - seconds)


def _end_span(span: RunningSpan, report: MessageReport) -> None:
    if report.coalesced or not report.operations:
        span.end(applied_calls=len(report.operations))
        return
    (operation,) = report.operations
    namespace = operation.request.arguments.get("namespace", "") if operation.request else ""
    outcome, reason = operation.outcome
    span.end(operation.error, tool=operation.tool.name, namespace=namespace, outcome=outcome, reason=reason)


def _success(task_id: str, request: Request, result: OperationResult) -> OperationEnd:
    tool = request.tool
    outcome = outcome_of_success(writes=tool.writes, replayed=getattr(result, "replayed", False))
    if isinstance(result, BatchResult):
        errors = [error for error in result.results if isinstance(error, KVStoreError)]
        refused = [outcome_of_error(error, writes=True) for error in errors]
        return OperationEnd(tool, task_id, outcome, request, None, refused)
    return OperationEnd(tool, task_id, outcome, request)
