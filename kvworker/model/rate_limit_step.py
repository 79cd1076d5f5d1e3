"""The step of a rate limit: the generic cell rate algorithm (GCRA) on one instant.

A limit of ``limit`` per ``per_seconds`` gives back one unit every ``per_seconds / limit``, up to ``burst``. An entry
holds only the instant at which everything is back, ``{"$full_at": nanoseconds}`` since 1970 by the database's clock.
It expires then: a missing entry is a full one, and a limit that is not used takes no room. Instants are whole numbers,
because sums of floats would lose units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from kvworker.errors import InvalidRequestError, InvalidValueTypeError
from kvworker.model.computed_steps import Change, ComputedStep, StepMoment, StoredEntry
from kvworker.model.limit_results import RateLimitResult
from kvworker.model.quoting import shown_argument
from kvworker.model.steps import Step
from kvworker.model.validation import check_count, check_period, is_stored_integer
from kvworker.model.values import JSONValue, decode_value, encode_value

#: The largest limit, burst and quantity.
MAX_RATE: Final = 1_000_000_000
#: Faster limits would not be exact: a unit takes a whole number of nanoseconds.
_MAX_PER_SECOND: Final = 1_000_000
#: The longest time that a limit may take to give everything back: about 30 years.
_MAX_FILL_SECONDS: Final = 1e9

_FULL_AT: Final = "$full_at"
_NANOSECONDS: Final = 1_000_000_000
_RESERVED_RECORDS: Final = 32


@dataclass(frozen=True, slots=True)
class RateLimitStep(ComputedStep):
    """Takes ``quantity`` from a limit if that much is left. ``burst`` None is the limit itself."""

    limit: int = 1
    per_seconds: float = 1.0
    burst: int | None = None
    quantity: int = 1

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        check_count("limit", self.limit, MAX_RATE)
        object.__setattr__(self, "per_seconds", check_period(self.per_seconds))
        if self.burst is None:
            object.__setattr__(self, "burst", self.limit)
        burst = check_count("burst", self.burst, MAX_RATE)
        check_count("quantity", self.quantity, MAX_RATE)
        if self.quantity > burst:
            raise InvalidRequestError(
                f"quantity is {shown_argument(self.quantity)}, but at most {burst} are ever left (burst, by default"
                " limit), so the call could never be allowed"
            )
        if self.limit > _MAX_PER_SECOND * self.per_seconds:
            raise InvalidRequestError(f"a rate limit is at most {_MAX_PER_SECOND} a second; use larger units")
        if burst * self.per_seconds > _MAX_FILL_SECONDS * self.limit:
            raise InvalidRequestError(f"burst must be back within {_MAX_FILL_SECONDS:.0f} seconds; use a smaller one")

    @property
    def request(self) -> list[JSONValue]:
        """The limit and the quantity."""
        return [self.limit, self.per_seconds, self.burst, self.quantity]

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Take the quantity, or answer when it will be there.

        Raises:
            InvalidValueTypeError: The entry holds something else.
        """
        now = _nanoseconds(moment.now)
        capacity = self.capacity
        # Whatever the entry says, from a limit with other numbers perhaps, at most everything is missing.
        full_at = min(max(now, self._full_at(entry, moment)), now + capacity)
        taken = full_at + self.cost
        if taken > now + capacity:
            return Change([False, self._remaining(now, capacity, full_at), taken - capacity, full_at])
        answer: list[JSONValue] = [True, self._remaining(now, capacity, taken), now, taken]
        # A microsecond more than rounding can take away: an entry that vanished early would give back too much.
        return Change(answer, encode_value({_FULL_AT: taken}), taken / _NANOSECONDS + 1e-6)

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> RateLimitResult:
        """Make the result."""
        allowed, remaining, retry_at, full_at = answer
        now = _nanoseconds(moment.now)
        retry_after, full_after = (max(0, at - now) / _NANOSECONDS for at in (retry_at, full_at))
        return RateLimitResult(moment.namespace, self.key, allowed, remaining, retry_after, full_after, replayed)

    def reserved_records(self, present: int, *, is_written: bool) -> int:  # noqa: ARG002
        """Return enough for the next calls, refused ones too: those then need not change the ledger."""
        return _RESERVED_RECORDS if present <= 1 else present

    @property
    def unit(self) -> int:
        """The nanoseconds in which one unit comes back, rounded up: never too fast."""
        return -(-round(self.per_seconds * _NANOSECONDS) // self.limit)

    @property
    def capacity(self) -> int:
        """The nanoseconds in which everything comes back."""
        return self.unit * (self.burst or self.limit)

    @property
    def cost(self) -> int:
        """The nanoseconds in which what the call takes comes back."""
        return self.unit * self.quantity

    def _remaining(self, now: int, capacity: int, full_at: int) -> int:
        return (now + capacity - full_at) // self.unit

    def _full_at(self, entry: StoredEntry | None, moment: StepMoment) -> int:
        if entry is None:
            return 0
        value = decode_value(entry.text)
        full_at = value[_FULL_AT] if isinstance(value, dict) and value.keys() == {_FULL_AT} else None
        if not is_stored_integer(full_at, 0):
            raise InvalidValueTypeError(moment.namespace, self.key, "a rate limit")
        return full_at


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1_000_000) * 1000
