"""Steps whose effect is computed from the entry's present value, without a database.

An adapter locks the entry, hands it to ``ComputedStep.change``, stores what that returns, and keeps the answer in the
operation's record. So one implementation serves every database, in batches too, and a replay repeats the answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from kvworker.model.results import ComputedResult
from kvworker.model.steps import Step
from kvworker.model.values import JSONValue


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """A live entry as a computed step finds it: its value as canonical JSON text, its expiry and its version.

    Instants are seconds since 1970 by the database's clock.
    """

    text: str
    expires_at: float | None
    version: int


@dataclass(frozen=True, slots=True)
class StepMoment:
    """When and where a step is applied.

    ``now`` is the database's clock in seconds since 1970. ``version`` is the entry's version afterwards if the step
    writes it: it is larger than every version that the key ever had.
    """

    namespace: str
    now: float
    version: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a computed step does, and the answer that the operation's record keeps.

    Without ``text`` and ``removes`` the entry stays as it is. An entry that is written gets ``expires_at``.
    """

    answer: JSONValue
    text: str | None = None
    expires_at: float | None = None
    removes: bool = False


class ComputedStep(Step, ABC):
    """A step with its own effect and result.

    Subclasses are frozen dataclasses with slots, and ``COMPUTED_STEPS`` in ``kvworker.model.step_classes`` names them.
    They add their own fields to those of ``Step``, and call ``Step.__post_init__``.
    """

    __slots__ = ()

    #: The names of the options of ``Step`` that it takes.
    inherited_options: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def request(self) -> list[JSONValue]:
        """The arguments that tell this request from another one with the same operation id, without the key."""

    @abstractmethod
    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Decide what to do with the entry; None is a missing or expired one.

        Raises:
            KVStoreError: The step is refused.
        """

    @property
    def makes_version(self) -> bool:
        """True: it may write the entry."""
        return True

    @property
    def reads_value(self) -> bool:
        """True: its effect depends on the value."""
        return True

    def _option_names(self) -> tuple[str, ...]:
        return self.inherited_options

    def reserved_records(self, present: int, *, is_written: bool) -> int:
        """Return how many operation records the entry holds in reserve afterwards, for its next writes.

        Args:
            present: The number that it holds at present. One must stay for its deletion.
            is_written: Whether the step writes the entry. One that only answers should not write it for its reserve.
        """
        return max(1, present) if is_written else present

    def record_of(self, outcome: str) -> str:
        """Return what the operation's record keeps of the answer, as JSON text: by default all of it."""
        return outcome

    @abstractmethod
    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> ComputedResult:
        """Make the result from the answer that ``change`` gave, perhaps long ago.

        Args:
            moment: The present moment; its version means nothing here.
            answer: The answer, as decoded from JSON.
            replayed: Whether the operation was applied before.
        """

    def expiry(self, entry: StoredEntry | None, moment: StepMoment) -> float | None:
        """Return when the written entry expires: after ``ttl_seconds``, or else when it did before."""
        if self.ttl_seconds is not None:
            return moment.now + self.ttl_seconds
        return entry.expires_at if entry else None

    def remaining_seconds(self, expires_at: float | None, moment: StepMoment, *, replayed: bool) -> float | None:
        """Return the seconds until an instant, at least 0; None for None."""
        if expires_at is None:
            return None
        if self.ttl_seconds is not None and not replayed:
            # The TTL that the caller asked for, not the remainder a moment later.
            return self.ttl_seconds
        return max(0.0, expires_at - moment.now)
