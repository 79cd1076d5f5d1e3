"""Reports how operations and periodic tasks ended: to the worker's observer, and operations to the log."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kvworker.errors import KVStoreError
from kvworker.messaging.observer import Event, MaintenanceReport, Observer, OperationReport
from kvworker.messaging.outcomes import outcome_of_error, outcome_of_success
from kvworker.messaging.waiting import waited_seconds
from kvworker.messaging.wire import WAITING
from kvworker.model import BatchResult
from kvworker.worker.operation_log import is_logging, log_operation

if TYPE_CHECKING:
    from kvworker.messaging.clock import ServerClock
    from kvworker.messaging.outcomes import Outcome
    from kvworker.messaging.wire import Request
    from kvworker.model import OperationResult
    from kvworker.tools import Tool


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
    """Reports what one message's task has done.

    Args:
        task_request: Celery's request of the task.
        observer: Whom to tell.
        clock: The clock of deadlines.
    """

    __slots__ = ("_began", "_clock", "_observer", "_request")

    def __init__(self, task_request: Any, observer: Observer, clock: ServerClock) -> None:
        self._request = task_request
        self._observer = observer
        self._clock = clock
        self._began = time.monotonic()

    @property
    def is_redelivered(self) -> bool:
        """Whether the message was delivered before."""
        return bool((self._request.delivery_info or {}).get("redelivered"))

    def succeeded(self, request: Request, result: OperationResult) -> None:
        """Report the operation of the message, which has a result."""
        self._report([self._success(self._request.id, request, result)])

    def failed(self, tool: Tool, request: Request | None, error: BaseException) -> None:
        """Report the operation of the message, which raised an error; ``request`` is None if it was not admitted."""
        outcome = outcome_of_error(error, writes=tool.writes)
        self._report([OperationReport(tool, self._request.id, outcome, request=request, error=error)])

    def applied_many(self, calls: int, requests: Mapping[str, Request], results: Mapping[str, OperationResult]) -> None:
        """Report the calls of a coalesced message that were applied, by their task ids."""
        self._observer.coalesced_message_ended(calls)
        if calls > len(results):
            self._observer.happened(Event.CALL_LEFT_OUT, calls - len(results))
        applied = [self._success(task_id, requests[task_id], result) for task_id, result in results.items()]
        for report in applied:
            report.coalesced = calls
        self._report(applied)

    @staticmethod
    def _success(task_id: str, request: Request, result: OperationResult) -> OperationReport:
        outcome = outcome_of_success(writes=request.tool.writes, replayed=getattr(result, "replayed", False))
        refused = _refused_steps(result) if isinstance(result, BatchResult) else ()
        return OperationReport(request.tool, task_id, outcome, request=request, refused_steps=refused)

    def _report(self, reports: Sequence[OperationReport]) -> None:
        seconds = time.monotonic() - self._began
        waited = self._waited_before(seconds)
        is_redelivered = self.is_redelivered
        for report in reports:
            report.seconds, report.queue_seconds, report.redelivered = seconds, waited, is_redelivered
            if is_logging() and not (report.error and not isinstance(report.error, KVStoreError)):
                log_operation(report)
        if is_redelivered:
            self._observer.happened(Event.REDELIVERED)
        self._observer.operations_ended(reports)

    def _waited_before(self, seconds: float) -> float | None:
        header = getattr(self._request, WAITING, None)
        if header is None:
            return None
        self._clock.keep()
        return waited_seconds(header, self._clock.now() - seconds)


def _refused_steps(batch: BatchResult) -> list[Outcome]:
    return [outcome_of_error(error, writes=True) for error in batch.results if isinstance(error, KVStoreError)]
