"""What callers asked for and what they were told, one record for each call."""

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
    """What a caller knows after a call."""

    READ = "read"
    APPLIED = "applied"
    REPLAYED = "replayed"
    REFUSED = "refused"
    EXPIRED = "expired"
    UNSENT = "unsent"
    UNKNOWN = "unknown"

    @property
    def is_success(self) -> bool:
        """Whether the write is there, as its caller was told."""
        return self in {Outcome.APPLIED, Outcome.REPLAYED}


@dataclass(frozen=True, slots=True)
class Step:
    """What a call asks of one key: ``value`` is what is added or put; ``fail`` is a step that is refused by intent."""

    action: Action
    key: str
    value: Any = None
    ttl_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step gave: the value that was read or became of it (None: a miss), and the entry's version."""

    value: Any = None
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the facade. ``operation_id`` is "" for a read; ``began`` is by the monotonic clock."""

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
        """When the caller had its answer."""
        return self.began + self.took_seconds

    @property
    def name(self) -> str:
        """How a violation names it."""
        what = ", ".join(f"{step.action} {step.key}" for step in self.steps)
        return f"{self.kind} {self.operation_id or 'of'} ({what}) in {self.namespace!r} by {self.caller}"


_OUTCOMES: tuple[tuple[type[KVStoreError], Outcome], ...] = (
    (OperationRefusedError, Outcome.REFUSED),
    (OperationExpiredError, Outcome.EXPIRED),
    (OperationNotSentError, Outcome.UNSENT),
    (QueueUnavailableError, Outcome.UNSENT),
)
#: Errors by which a fault may show; any other that is no refusal is a defect of its own.
UNKNOWNS: tuple[type[KVStoreError], ...] = (
    OperationTimeoutError,
    StoreUnavailableError,
    OperationFailedError,
    RedeliveryLimitError,
)


def classify(error: BaseException) -> Outcome:
    """What a caller knows after an error: by what docs/reference/operations.md says of its class, else nothing."""
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(error, kind)), Outcome.UNKNOWN)


class History:
    """The calls of all callers. They are kept in a file, so that a long run does not grow. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")
        self._lock = threading.Lock()

    def add(self, *calls: Call) -> None:
        """Note calls that have ended."""
        data = b"".join(pickle.dumps(call) for call in calls)
        with self._lock:
            self._file.write(data)

    def calls(self) -> list[Call]:
        """All calls in the order in which they were noted."""
        with self._lock:
            self._file.flush()
        found: list[Call] = []
        with self._path.open("rb") as file:
            while file.peek(1):
                found.append(pickle.load(file))  # noqa: S301 - written by this very process
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(frozen=True)
class Operation:
    """All calls with one operation id in one namespace, in their order: the tries of one write."""

    tries: tuple[Call, ...]

    @property
    def first(self) -> Call:
        """The first try."""
        return self.tries[0]

    @property
    def success(self) -> Call | None:
        """The try that was acknowledged, if one was."""
        return next((call for call in self.tries if call.outcome.is_success), None)

    @property
    def outcome(self) -> Outcome:
        """What its caller knows in the end.

        After an unknown try, one that expired or was not sent tells nothing of the earlier message.
        """
        if self.success is not None:
            return self.success.outcome
        last = self.tries[-1].outcome
        is_unsure = any(call.outcome is Outcome.UNKNOWN for call in self.tries)
        return Outcome.UNKNOWN if is_unsure and last is not Outcome.REFUSED else last


def operations_of(calls: Iterable[Call]) -> list[Operation]:
    """The writes, in the order of their first tries."""
    tries: dict[tuple[str, str], list[Call]] = {}
    for call in calls:
        if call.operation_id:
            tries.setdefault((call.namespace, call.operation_id), []).append(call)
    return [Operation(tuple(found)) for found in tries.values()]


def seconds_at(calls: Sequence[Call], share: float) -> float:
    """How long the given share of the calls took at most (0.99: the p99); 0 without calls."""
    took = sorted(call.took_seconds for call in calls)
    return took[min(len(took) - 1, int(len(took) * share))] if took else 0.0
