"""The history: one record for each call, with its request and its outcome."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypeAlias

from kvworker.errors import (
    KVStoreError,
    OperationExpiredError,
    OperationFailedError,
    OperationNotSentError,
    OperationRefusedError,
    OperationTimeoutError,
    QueueUnavailableError,
    RedeliveryLimitError,
    StoreUnavailableError,
)

Action: TypeAlias = Literal["add", "put", "remove", "read", "fail"]


class Outcome(StrEnum):
    """A caller's knowledge after a call."""

    READ = "read"
    APPLIED = "applied"
    REPLAYED = "replayed"
    REFUSED = "refused"
    EXPIRED = "expired"
    UNSENT = "unsent"
    UNKNOWN = "unknown"

    @property
    def is_success(self) -> bool:
        """True if the write was acknowledged."""
        return self in {Outcome.APPLIED, Outcome.REPLAYED}


@dataclass(frozen=True, slots=True)
class Step:
    """A call's request for one key: ``value`` is added or put; the action ``fail`` must be refused."""

    action: Action
    key: str
    value: Any = None
    ttl_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A step's answer: the value after the step (None for a miss), and the entry's version."""

    value: Any = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the facade. ``operation_id`` is "" for a read; ``began`` is monotonic time."""

    caller: str
    kind: str
    namespace: str
    operation_id: str
    steps: tuple[Step, ...]
    timeout_seconds: float
    began: float
    took_seconds: float
    outcome: Outcome
    error: str = ""
    detail: str = ""
    answers: tuple[Answer, ...] = ()

    @property
    def ended(self) -> float:
        """The time at which the caller got its answer."""
        return self.began + self.took_seconds

    @property
    def name(self) -> str:
        """The description that violations use."""
        steps = ", ".join(f"{step.action} {step.key}" for step in self.steps)
        return f"{self.kind} {self.operation_id or 'of'} ({steps}) in {self.namespace!r} by {self.caller}"


_OUTCOMES: tuple[tuple[type[KVStoreError], Outcome], ...] = (
    (OperationRefusedError, Outcome.REFUSED),
    (OperationExpiredError, Outcome.EXPIRED),
    (OperationNotSentError, Outcome.UNSENT),
    (QueueUnavailableError, Outcome.UNSENT),
)
#: Errors that a fault may cause. Any other error is a defect, unless it is a refusal.
UNKNOWNS: tuple[type[KVStoreError], ...] = (
    OperationTimeoutError,
    StoreUnavailableError,
    OperationFailedError,
    RedeliveryLimitError,
)


def classify(error: BaseException) -> Outcome:
    """Classify an error as docs/reference/operations.md documents it; after any other error the outcome is unknown."""
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), Outcome.UNKNOWN)


class History:
    """The calls of all callers, in a file, so that memory does not grow during a long run. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")
        self._lock = threading.Lock()

    def add(self, *calls: Call) -> None:
        """Record calls that have ended."""
        data = b"".join(pickle.dumps(call) for call in calls)
        with self._lock:
            self._file.write(data)

    def calls(self) -> list[Call]:
        """Read all calls, in the order in which they were recorded."""
        with self._lock:
            self._file.flush()
        found: list[Call] = []
        with self._path.open("rb") as file:
            while file.peek(1):
                found.append(pickle.load(file))  # noqa: S301 - this process wrote it
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class Operation:
    """One write: all calls with its operation id in its namespace, in order."""

    tries: tuple[Call, ...]

    @property
    def first(self) -> Call:
        """The first try."""
        return self.tries[0]

    @property
    def success(self) -> Call | None:
        """The first acknowledged try, or None."""
        return next((call for call in self.tries if call.outcome.is_success), None)

    @property
    def outcome(self) -> Outcome:
        """The caller's final knowledge.

        After an unknown try, a later try that expired or was not sent says nothing about the earlier message.
        """
        if self.success is not None:
            return self.success.outcome
        last = self.tries[-1].outcome
        is_unsure = any(call.outcome is Outcome.UNKNOWN for call in self.tries)
        return Outcome.UNKNOWN if is_unsure and last is not Outcome.REFUSED else last


def operations_of(calls: Iterable[Call]) -> list[Operation]:
    """Group the calls into writes, in the order of their first tries."""
    tries: dict[tuple[str, str], list[Call]] = {}
    for call in calls:
        if call.operation_id:
            tries.setdefault((call.namespace, call.operation_id), []).append(call)
    return [Operation(tuple(found)) for found in tries.values()]


def seconds_at(calls: Sequence[Call], share: float) -> float:
    """Compute a percentile of the calls' durations in seconds (0.99 gives the p99); 0 without calls."""
    took = sorted(call.took_seconds for call in calls)
    return took[min(len(took) - 1, int(len(took) * share))] if took else 0.0
