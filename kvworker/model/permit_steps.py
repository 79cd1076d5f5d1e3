"""Steps on a semaphore: an entry that lists its permits, each with holder, fencing token and expiry.

A lease is the only permit of a semaphore. An entry's value is ``{"$permits": [{"holder", "token", "until"}, …]}``, with
``until`` in microseconds since 1970 by the database's clock. A permit past it counts as absent. The entry expires with
its last permit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, cast

from kvworker.errors import InvalidTTLError, InvalidValueTypeError, LeaseLostError
from kvworker.model.computed_steps import Change, ComputedStep, StepMoment, StoredEntry
from kvworker.model.identifiers import check_holder
from kvworker.model.limit_results import AcquirePermitResult, ReleasePermitResult, RenewPermitResult
from kvworker.model.steps import Step
from kvworker.model.validation import check_count, check_token, check_ttl, is_stored_integer
from kvworker.model.values import DecodedValue, JSONValue, decode_value, encode_value

#: The most permits of a semaphore. Each is about 100 bytes of its value, which every change writes again.
MAX_PERMITS: Final = 1000

_PERMITS: Final = "$permits"
_NEEDED: Final = "a lease or semaphore"


@dataclass(frozen=True, slots=True)
class _Permit:
    holder: str
    token: int
    until: int


@dataclass(frozen=True, slots=True)
class _PermitStep(ComputedStep):
    """A step of a permit's holder."""

    inherited_options: ClassVar[tuple[str, ...]] = ("ttl_seconds",)

    holder: str = ""

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        check_holder(self.holder)

    def _permits(self, entry: StoredEntry | None, moment: StepMoment) -> list[_Permit]:
        if entry is None:
            return []
        permits = _permits_of(decode_value(entry.text))
        if permits is None:
            raise InvalidValueTypeError(moment.namespace, self.key, _NEEDED)
        return permits

    def _live_permits(self, entry: StoredEntry | None, moment: StepMoment) -> list[_Permit]:
        return _live(self._permits(entry, moment), moment)

    def _until(self, moment: StepMoment) -> int:
        return microseconds(moment.now + check_permit_ttl(self.ttl_seconds))


@dataclass(frozen=True, slots=True)
class AcquirePermitStep(_PermitStep):
    """Takes one of a number of permits. A holder that has one keeps it, with a new expiry."""

    permits: int = 1

    def __post_init__(self) -> None:
        _PermitStep.__post_init__(self)
        check_permit_ttl(self.ttl_seconds)
        check_count("permits", self.permits, MAX_PERMITS)

    @property
    def request(self) -> list[JSONValue]:
        """The holder and the number of permits."""
        return [self.holder, self.permits]

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Add or renew the holder's permit, or answer that none is free.

        Raises:
            InvalidValueTypeError: The entry holds something else.
        """
        permits = self._permits(entry, moment)
        live = _live(permits, moment)
        others = [permit for permit in live if permit.holder != self.holder]
        own = next((permit for permit in live if permit.holder == self.holder), None)
        if own is None and len(others) >= self.permits:
            return Change([None, len(others), min(permit.until for permit in others)])
        # The entry of an import has a new version, by the clock of this database, which may be behind.
        token = own.token if own else max([moment.version, *(permit.token + 1 for permit in permits)])
        mine = _Permit(self.holder, token, self._until(moment))
        return _stored([token, len(others) + 1, mine.until], [*others, mine])

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> AcquirePermitResult:
        """Make the result."""
        token, in_use, until = answer
        name, seconds = (moment.namespace, self.key), _seconds_until(until, moment)
        if token is None:
            return AcquirePermitResult(
                *name, acquired=False, in_use=in_use, retry_after_seconds=seconds, replayed=replayed
            )
        return AcquirePermitResult(
            *name, acquired=True, in_use=in_use, token=token, ttl_seconds=seconds, replayed=replayed
        )


@dataclass(frozen=True, slots=True)
class _HeldPermitStep(_PermitStep):
    """A step on the permit that a holder has; with ``token``, only if it is still this one."""

    token: int | None = None

    def __post_init__(self) -> None:
        _PermitStep.__post_init__(self)
        check_token(self.token)

    @property
    def request(self) -> list[JSONValue]:
        """The holder and the token."""
        return [self.holder, self.token]

    def _is_mine(self, permit: _Permit) -> bool:
        return permit.holder == self.holder and self.token in {None, permit.token}


@dataclass(frozen=True, slots=True)
class RenewPermitStep(_HeldPermitStep):
    """Gives a permit a new expiry. Its token stays."""

    def __post_init__(self) -> None:
        _HeldPermitStep.__post_init__(self)
        check_permit_ttl(self.ttl_seconds)

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Renew the permit.

        Raises:
            LeaseLostError: It has expired or was released.
            InvalidValueTypeError: The entry holds something else.
        """
        live = self._live_permits(entry, moment)
        mine = next((permit for permit in live if self._is_mine(permit)), None)
        if mine is None:
            raise LeaseLostError(moment.namespace, self.key)
        renewed = replace(mine, until=self._until(moment))
        return _stored([renewed.token, renewed.until], [renewed if each is mine else each for each in live])

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> RenewPermitResult:
        """Make the result."""
        token, until = answer
        return RenewPermitResult(moment.namespace, self.key, token, _seconds_until(until, moment), replayed)


@dataclass(frozen=True, slots=True)
class ReleasePermitStep(_HeldPermitStep):
    """Gives a permit back. A permit that has expired, or a later one of another holder, stays as it is."""

    inherited_options: ClassVar[tuple[str, ...]] = ()

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Remove the permit.

        Raises:
            InvalidValueTypeError: The entry holds something else.
        """
        live = self._live_permits(entry, moment)
        others = [permit for permit in live if not self._is_mine(permit)]
        released = len(others) < len(live)
        if not released:
            return Change(answer=False)
        return _stored(released, others) if others else Change(released, removes=True)

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> ReleasePermitResult:
        """Make the result."""
        return ReleasePermitResult(moment.namespace, self.key, answer, replayed)


def _permits_of(value: DecodedValue) -> list[_Permit] | None:
    """Return the permits that a value lists, or None if it is something else: anybody may write one alike."""
    if not isinstance(value, dict) or value.keys() != {_PERMITS} or not isinstance(value[_PERMITS], list):
        return None
    permits = [_permit_of(each) for each in value[_PERMITS]]
    return None if None in permits else cast(list[_Permit], permits)


def _permit_of(value: DecodedValue) -> _Permit | None:
    if not isinstance(value, dict) or value.keys() != {"holder", "token", "until"}:
        return None
    holder, token, until = value["holder"], value["token"], value["until"]
    if not (isinstance(holder, str) and is_stored_integer(token, 1) and is_stored_integer(until, 0)):
        return None
    return _Permit(holder, token, until)


def _live(permits: Sequence[_Permit], moment: StepMoment) -> list[_Permit]:
    now = microseconds(moment.now)
    return [permit for permit in permits if permit.until > now]


def check_permit_ttl(ttl_seconds: object) -> float:
    """Return the TTL of a permit in seconds. A permit needs one, or a dead holder would keep it forever.

    Raises:
        InvalidTTLError: It is missing, or not a finite number above 0.
    """
    ttl = check_ttl(ttl_seconds)
    if ttl is None:
        raise InvalidTTLError("a permit needs ttl_seconds: the permit of a holder that died is free after that time")
    return ttl


def microseconds(seconds: float) -> int:
    """Return an instant in whole microseconds, as exact as the database's clock is read."""
    return round(seconds * 1_000_000)


def _seconds_until(until: int, moment: StepMoment) -> float:
    return max(0.0, (until - microseconds(moment.now)) / 1_000_000)


def _stored(answer: JSONValue, permits: Sequence[_Permit]) -> Change:
    listed: list[JSONValue] = [{"holder": each.holder, "token": each.token, "until": each.until} for each in permits]
    expires_at = max(permit.until for permit in permits) / 1_000_000
    # A permit must not vanish before its time because the division has rounded down.
    return Change(answer, encode_value({_PERMITS: listed}), math.nextafter(expires_at, math.inf))
