"""The results of steps that hold callers back: permits and rate limits."""

from __future__ import annotations

from dataclasses import dataclass

from kvworker.model.results import ComputedResult


@dataclass(frozen=True, slots=True)
class AcquirePermitResult(ComputedResult):
    """The result of ``acquire_permit``.

    ``token`` is the permit's fencing token: it is larger than that of every permit which this key gave before, even
    after expiry and deletion. It is None if no permit was free. ``ttl_seconds`` is the time until the permit expires,
    and ``retry_after_seconds`` the time until the first of the permits that others hold does. ``in_use`` counts the
    permits that are held afterwards.
    """

    _left_out_when_none = frozenset({"token", "ttl_seconds", "retry_after_seconds"})

    acquired: bool
    in_use: int
    token: int | None = None
    ttl_seconds: float | None = None
    retry_after_seconds: float | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class RenewPermitResult(ComputedResult):
    """The result of ``renew_permit``: the permit keeps its token and expires ``ttl_seconds`` from now."""

    token: int
    ttl_seconds: float
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class ReleasePermitResult(ComputedResult):
    """The result of ``release_permit``. ``released`` is False if the permit had expired or was released before."""

    released: bool
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class RateLimitResult(ComputedResult):
    """The result of ``rate_limit``.

    ``remaining`` is the quantity that is left now. ``retry_after_seconds`` is the time until the same call may be
    allowed, 0 if it was. After ``full_after_seconds`` without another call, everything is left again. A replay repeats
    ``allowed`` and ``remaining``, and takes nothing.
    """

    allowed: bool
    remaining: int
    retry_after_seconds: float
    full_after_seconds: float
    replayed: bool = False
