"""The seam between a worker and those who count or trace its work.

An ``Observer`` is told after the fact, in the thread that did the work. It must be quick, and may not raise.
``kvworker.worker.totals`` counts what it is told. ``kvworker.client`` reports calls to a ``CallObserver``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvworker.messaging.outcomes import Outcome
    from kvworker.messaging.wire import Request
    from kvworker.tools import Tool


class Event(StrEnum):
    """An event that is counted beside operations. Its value is its name in reports and, with a prefix, in metrics."""

    REDELIVERED = "redeliveries"
    RETRIED = "retries"
    DATABASE_FAILED = "database_errors"
    LATE_DROPPED = "late_messages_dropped"
    MALFORMED_REFUSED = "malformed_messages_refused"
    BROKER_LOST = "broker_connections_lost"
    BROKER_REFUSED = "broker_refusals"
    RESULT_NOT_STORED = "results_not_stored"
    PROCESS_LOST = "pool_processes_lost"
    CALL_LEFT_OUT = "coalesced_calls_left_out"
    DRIFT = "ledger_drifts"


@dataclass(slots=True)
class OperationReport:
    """An operation that a worker has ended.

    Attributes:
        tool: Its tool.
        task_id: The id of its message, or of its call in a coalesced message.
        outcome: How it ended.
        seconds: How long it took from when the worker began with it, retries included.
        queue_seconds: How long it waited before, since its caller made the call; None if its message does not tell.
        request: Its arguments, operation id and persona; None if the message was not admitted.
        error: What it raised.
        redelivered: Whether its message was delivered before.
        coalesced: The number of calls in its message; 0 if it has its own.
        refused_steps: How the steps ended that a batch left out because they were refused.
    """

    tool: Tool
    task_id: str
    outcome: Outcome
    seconds: float = 0.0
    queue_seconds: float | None = None
    request: Request | None = None
    error: BaseException | None = None
    redelivered: bool = False
    coalesced: int = 0
    refused_steps: Sequence[Outcome] = ()


@dataclass(slots=True)
class MaintenanceReport:
    """A run of a periodic task that has ended.

    Attributes:
        task: ``sweep``, ``prune`` or ``recompute``.
        seconds: How long it took.
        rows: How many rows a sweep or a prune deleted, or how many ledgers a recompute checked.
        complete: False if its time budget ended first.
        failed: Whether it raised an error.
    """

    task: str
    seconds: float = 0.0
    rows: int = 0
    complete: bool = False
    failed: bool = False


class Observer:
    """Is told what a worker does. This one ignores it, and a subclass overrides what it needs."""

    def operations_ended(self, reports: Sequence[OperationReport]) -> None:
        """Take note of operations that ended: those of one message."""

    def coalesced_message_ended(self, calls: int) -> None:
        """Take note of a coalesced message with so many calls."""

    def maintenance_ended(self, report: MaintenanceReport) -> None:
        """Take note of a run of a periodic task."""

    def happened(self, event: Event, count: int = 1) -> None:
        """Take note of something that happened, perhaps several times."""
