"""The seam between workers or callers and those who count or trace their work.

A worker tells an ``Observer`` of operations that have ended; ``kvworker.worker.totals`` counts them. A facade tells a
``CallObserver`` of its calls, if it was given one. Both are told in the thread that did the work. They must be quick,
must not use the store, and must not raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

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


class OperationEnd(NamedTuple):
    """The end of an operation in a worker.

    Attributes:
        tool: Its tool.
        task_id: The id of its message, or of its call in a coalesced message.
        outcome: The way it ended.
        request: Its arguments, operation id and persona; None if its message was not admitted.
        error: The error that it raised.
        refused_steps: The outcomes of the steps that a batch left out because they were refused.
    """

    tool: Tool
    task_id: str
    outcome: Outcome
    request: Request | None = None
    error: BaseException | None = None
    refused_steps: Sequence[Outcome] = ()


@dataclass(slots=True)
class MessageReport:
    """A message whose operations a worker has ended.

    Attributes:
        operations: Its operations: one, or those of a coalesced message that were applied.
        seconds: The time from when the worker began with the message until they ended, retries included.
        queue_seconds: The time before that since its caller made the call; None if the message does not tell.
        redelivered: True if the message was delivered before.
        coalesced: The number of calls in a coalesced message; 0 for any other.
    """

    operations: Sequence[OperationEnd]
    seconds: float = 0.0
    queue_seconds: float | None = None
    redelivered: bool = False
    coalesced: int = 0


@dataclass(slots=True)
class MaintenanceReport:
    """A run of a periodic task that has ended.

    Attributes:
        task: ``sweep``, ``prune`` or ``recompute``.
        seconds: Its duration.
        rows: The number of rows that a sweep or a prune deleted, or of ledgers that a recompute checked.
        complete: False if its time budget ended first.
        failed: True if it raised an error.
    """

    task: str
    seconds: float = 0.0
    rows: int = 0
    complete: bool = False
    failed: bool = False


class Observer:
    """Observes a worker. This base class ignores every report; a subclass overrides the methods that it needs."""

    def message_ended(self, report: MessageReport) -> None:
        """Take note of a message whose operations have ended."""

    def maintenance_ended(self, report: MaintenanceReport) -> None:
        """Take note of a run of a periodic task."""

    def happened(self, event: Event, count: int = 1) -> None:
        """Take note of something that happened, perhaps several times."""


class CallEvent(StrEnum):
    """An event in a caller that is counted beside calls. Its value is its name in metrics, with a prefix."""

    RESENT = "messages_resent"
    SEND_FAILED = "send_failures"


class CallObserver:
    """Observes a facade's calls. This base class ignores every report; a subclass overrides the methods that it needs.

    A call may begin in one thread and end in another one. Each that begins also ends. In a forked child, calls of the
    parent do not end.
    """

    def call_began(self, tool: Tool) -> None:
        """Take note of a call, whose arguments are not checked yet."""

    def call_ended(self, tool: Tool, outcome: Outcome, seconds: float) -> None:
        """Take note of the end of a call.

        Args:
            tool: The tool that was called.
            outcome: The way it ended, as far as the caller knows.
            seconds: Its duration from the beginning, the wait for its turn included.
        """

    def coalesced_message_sent(self, calls: int) -> None:
        """Take note of a message that holds this number of calls."""

    def happened(self, event: CallEvent, count: int = 1) -> None:
        """Take note of something that happened, perhaps several times."""
