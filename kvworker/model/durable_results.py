"""The results of operations on durable steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kvworker.model.results import ComputedResult, Result
from kvworker.model.values import DecodedValue


@dataclass(frozen=True, slots=True)
class _StepState(ComputedResult):
    """What is known about a durable step.

    ``token`` is the present fencing token, and ``holder`` the caller that has it. ``lease_seconds`` is the rest of its
    lease. ``value`` is the recorded result or error of a step that is done or failed. ``unrecorded`` says why a step
    that has ended has no value: ``not_json``, ``too_large`` or ``quota``.
    """

    _left_out_when_none: ClassVar[frozenset[str]] = frozenset({"token", "holder", "lease_seconds", "unrecorded"})

    state: str
    token: int | None = None
    holder: str | None = None
    lease_seconds: float | None = None
    value: DecodedValue = None
    unrecorded: str | None = None

    @property
    def has_value(self) -> bool:
        """Whether the step has ended and its value is in ``value``."""
        return self.state in {"done", "failed"} and self.unrecorded is None

    def to_dict(self) -> dict[str, Any]:
        """Return the dict that crosses the queue, without a value if the step has none."""
        data = Result.to_dict(self)
        if not self.has_value:
            del data["value"]
        return data


@dataclass(frozen=True, slots=True)
class StepBeginResult(_StepState):
    """The result of ``step_begin``.

    ``state`` is ``reserved`` if the caller now holds the step, or else ``in_progress``, ``unknown``, ``done`` or
    ``failed``. A repetition of the call (``replayed``) has no ``value``: read it with ``step_status``.
    """

    replayed: bool = False

    @property
    def has_value(self) -> bool:
        """Whether the step has ended and its value is in ``value``."""
        return not self.replayed and self.state in {"done", "failed"} and self.unrecorded is None


@dataclass(frozen=True, slots=True)
class StepStatusResult(_StepState):
    """The result of ``step_status``.

    ``state`` is ``absent``, ``in_progress``, ``unknown``, ``done`` or ``failed``. ``ttl_seconds`` is the time for which
    an outcome is still kept; None means until it is deleted.
    """

    _left_out_when_none: ClassVar[frozenset[str]] = _StepState._left_out_when_none | {"ttl_seconds"}

    ttl_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StepRenewResult(ComputedResult):
    """The result of ``step_renew``: the holder has the step for another ``lease_seconds``."""

    token: int
    lease_seconds: float
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class StepFinishResult(ComputedResult):
    """The result of ``step_finish``: the step is ``done``, ``failed``, ``released`` or ``unknown``."""

    token: int
    state: str
    replayed: bool = False
