"""Refusals that persist: if a message arrives twice, one copy cannot be refused and the other one applied.

A refused write changes nothing, and its operation id may be used again. But a copy of the refused message may arrive
later, when there is room, although its caller has left with the refusal. Therefore the worker names the attempt that
a write belongs to, and the refusal is recorded under the operation id. The same attempt is refused again; another
attempt withdraws the record and runs. If two copies run at the same moment, the primary key of the record decides.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from kvworker.adapters.sql.write import Record
from kvworker.errors import (
    BatchRefusedError,
    CounterOverflowError,
    InvalidValueTypeError,
    KVStoreError,
    LeaseLostError,
    QuotaExceededError,
    RecordTooLargeError,
    StepConflictError,
    StepLostError,
    VersionConflictError,
    rebuild_error,
)

#: The errors that depend on stored data, so that another attempt may succeed.
REFUSALS: Final = (
    QuotaExceededError,
    VersionConflictError,
    InvalidValueTypeError,
    CounterOverflowError,
    LeaseLostError,
    RecordTooLargeError,
    BatchRefusedError,
    StepConflictError,
    StepLostError,
)
#: Stands in place of an applied operation's fingerprint.
REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class _Attempt:
    name: str = ""
    check: Callable[[], None] = lambda: None


_NO_ATTEMPT: Final = _Attempt()
_attempt: ContextVar[_Attempt] = ContextVar("attempt", default=_NO_ATTEMPT)


@contextmanager
def attempt(name: str, check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Name the attempt that the writes in this block belong to.

    Args:
        name: Identifies the attempt, such as a message's id.
        check: Raises if the attempt is over. It runs before another attempt's refusal is withdrawn: a resumed worker
            must not apply an operation that was retried, and refused, meanwhile.
    """
    token = _attempt.set(_Attempt(name, check))
    try:
        yield
    finally:
        _attempt.reset(token)


def is_refusal(record: Record) -> bool:
    """Return whether a record holds only refusals."""
    return record.fingerprint == REFUSED


def check_attempt() -> None:
    """Run the attempt's own check, which raises if the attempt is over."""
    _attempt.get().check()


def refusal_line(refusal: KVStoreError) -> str:
    """Return the line that records a refusal of this attempt; an empty string outside of an attempt."""
    name = _attempt.get().name
    return json.dumps([name, type(refusal).__name__, refusal.args]) + "\n" if name else ""


def refusal_of_this_attempt(record: Record) -> KVStoreError | None:
    """Return the refusal of this attempt from a record, or None."""
    name = _attempt.get().name
    for line in record.result.splitlines():
        attempted, error, args = json.loads(line)
        if name and attempted == name:
            return rebuild_error(error, args)
    return None
