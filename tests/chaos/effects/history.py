"""What happened: the effects that arrived outside, the callers' calls, and the settlements of unknown steps.

Each event is a line in a file, written before its writer goes on, so that the file of a killed process is complete.
Times are monotonic. All processes of a machine share that clock, also those whose other clock is wrong.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeAlias


class Outcome(StrEnum):
    """What a caller knows after its call of a step."""

    #: The call has not ended: its process was killed, or still waits.
    OPEN = "open"
    RETURNED = "returned"
    #: The step's declared exception.
    FAILED = "failed"
    #: ``EffectUnknownError``.
    UNKNOWN = "unknown"
    #: ``StepInProgressError``.
    IN_PROGRESS = "in progress"
    #: ``StepLostError``: the lease ran out while the function ran.
    LOST = "lost"
    #: ``IdempotencyConflictError``: the key was used with other arguments.
    CONFLICT = "conflict"
    #: An error that the faults explain: a server was away, or did not answer in time.
    UNAVAILABLE = "unavailable"
    #: An error that nothing explains.
    DEFECT = "defect"

    @property
    def is_final(self) -> bool:
        """True if the step has ended, so that every later call must be told the same."""
        return self in {Outcome.RETURNED, Outcome.FAILED}


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect that arrived at the recorder. ``receipt`` is its unique number there, which the step returns."""

    key: str
    token: int
    arguments: str
    receipt: str
    at: float


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a step. ``receipt`` is the result, or the content of the declared exception."""

    caller: str
    key: str
    form: str
    arguments: str
    began: float
    ended: float = float("inf")
    outcome: Outcome = Outcome.OPEN
    receipt: str = ""
    detail: str = ""

    @property
    def name(self) -> str:
        """The description that violations use."""
        return f"call of {self.key!r} by {self.caller} ({self.form}, {self.arguments})"


@dataclass(frozen=True, slots=True)
class Settlement:
    """The answer to the question whether the effect of one attempt happened, written down before it was given."""

    key: str
    token: int
    happened: bool
    at: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """A step as the store holds it in the end: its state, its fencing token, and the receipt of its outcome."""

    key: str
    state: str
    token: int
    receipt: str = ""


Event: TypeAlias = Call | Settlement
_KINDS: Mapping[str, type[Call | Settlement]] = {"call": Call, "settlement": Settlement}


class Journal:
    """A file of events, one a line, that one process writes."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, event: Event) -> None:
        """Write an event. A call is written when it begins and again when it ends."""
        kind = type(event).__name__.lower()
        os.write(self._descriptor, f"{json.dumps([kind, asdict(event)])}\n".encode())


@dataclass(frozen=True)
class Histories:
    """Everything that the verdict judges."""

    effects: tuple[Effect, ...] = ()
    calls: tuple[Call, ...] = ()
    settlements: tuple[Settlement, ...] = ()
    recorded: tuple[Recorded, ...] = ()

    @classmethod
    def read(cls, journals: Iterable[Path], effects: Iterable[Effect], recorded: Iterable[Recorded]) -> Self:
        """Read the callers' journals."""
        calls: dict[tuple[str, float], Call] = {}
        settlements: list[Settlement] = []
        for event in (event for journal in journals for event in _events(journal)):
            if isinstance(event, Settlement):
                settlements.append(event)
            else:
                calls[event.caller, event.began] = event
        return cls(tuple(effects), tuple(calls.values()), tuple(settlements), tuple(recorded))


def _events(journal: Path) -> Iterable[Event]:
    for line in journal.read_text(encoding="utf-8").splitlines():
        kind, fields = json.loads(line)
        yield _KINDS[kind](**_typed(fields))


def _typed(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "outcome": Outcome(fields["outcome"])} if "outcome" in fields else fields
