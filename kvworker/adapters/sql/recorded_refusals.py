"""Refusals that stay: a message that comes twice is not refused once and applied once.

A refused write leaves everything as it is, and may be tried again with its operation id. But a copy of the very message
that was refused may come later, when there is room, and its caller has gone away with the refusal. So who runs
messages names the attempt, and the refusal is recorded under the operation id: the same attempt is refused again,
another one takes the record away and runs. That a copy runs at this moment is settled by the record's primary key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from kvworker.adapters.sql.dialect import Record
from kvworker.errors import (
    BatchRefusedError,
    CounterOverflowError,
    InvalidValueTypeError,
    KVStoreError,
    QuotaExceededError,
    VersionConflictError,
    rebuild_error,
)

#: What depends on what is stored, and may be granted another time.
REFUSALS: Final = (
    QuotaExceededError,
    VersionConflictError,
    InvalidValueTypeError,
    CounterOverflowError,
    BatchRefusedError,
)
#: Stands where the fingerprint of an applied operation would.
_REFUSED: Final = "refused"


@dataclass(frozen=True, slots=True)
class _Attempt:
    name: str = ""
    check_in_time: Callable[[], None] = lambda: None


_NO_ATTEMPT: Final = _Attempt()
_attempt: ContextVar[_Attempt] = ContextVar("attempt", default=_NO_ATTEMPT)


@contextmanager
def attempt(name: str, check_in_time: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Name the attempt, such as the message, that the writes in this block belong to.

    ``check_in_time`` raises if the attempt is over. It is asked before another attempt's refusal is taken away: who
    was frozen since it began must not apply what was tried again, and refused, in the meantime.
    """
    token = _attempt.set(_Attempt(name, check_in_time))
    try:
        yield
    finally:
        _attempt.reset(token)


def is_refusal(record: Record) -> bool:
    """Tell whether a record is of refusals only."""
    return record.fingerprint == _REFUSED


def check_in_time() -> None:
    """Raise what the attempt's own check raises, if the attempt is over."""
    _attempt.get().check_in_time()


def noted(refusal: KVStoreError) -> str:
    """Give the line that the record has for this attempt's refusal; nothing without an attempt."""
    name = _attempt.get().name
    return json.dumps([name, type(refusal).__name__, refusal.args]) + "\n" if name else ""


def refusal_of_this_attempt(record: Record) -> KVStoreError | None:
    """Give the refusal of this attempt, if it is in the record."""
    name = _attempt.get().name
    for line in record.result.splitlines():
        attempted, error, args = json.loads(line)
        if name and attempted == name:
            return rebuild_error(error, args)
    return None
