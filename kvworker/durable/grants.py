"""What leases of threads and of coroutines share: how a permit is asked for, and whether it is still held."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field
from typing import Any, Final

from kvworker.client.timeouts import check_timeout
from kvworker.durable.holders import PASSING_FAILURES, check_wait, new_holder
from kvworker.errors import (
    KVStoreError,
    LeaseHeldError,
    LeaseLostError,
    UnknownOutcomeError,
)
from kvworker.model import (
    MAX_PERMITS,
    AcquirePermitResult,
    check_count,
    check_flag,
    check_key,
    check_namespace,
    check_permit_ttl,
)
from kvworker.settings import Settings

#: The pauses between the attempts of a waiter double from the first to the longest, and are random.
_FIRST_PAUSE_SECONDS: Final = 0.05
_MAX_PAUSE_SECONDS: Final = 1.0
#: The same for a waiter that is woken when a permit is free. It asks now and then because a wake-up may be lost.
_MAX_WOKEN_PAUSE_SECONDS: Final = 5.0
#: The longest random pause after a wake-up, which comes to many processes in the same moment.
_SPREAD_SECONDS: Final = 0.01
#: A permit is renewed after this part of its TTL, but at least once an hour.
_RENEWAL_PART: Final = 1 / 3
_MAX_RENEWAL_SECONDS: Final = 3600.0
_MIN_RENEWAL_SECONDS: Final = 0.01
_MIN_RENEWAL_TIMEOUT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class PermitRequest:
    """The arguments of ``lease`` and ``semaphore``, checked.

    Raises:
        InvalidRequestError: An argument is wrong.
    """

    namespace: str
    name: str
    permits: int
    ttl_seconds: float
    wait_seconds: float = 0.0
    auto_renew: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        check_key(self.name)
        check_count("permits", self.permits, MAX_PERMITS)
        object.__setattr__(self, "ttl_seconds", check_permit_ttl(self.ttl_seconds))
        object.__setattr__(self, "wait_seconds", check_wait(self.wait_seconds))
        check_flag("auto_renew", self.auto_renew)
        check_timeout(self.timeout, 1.0)

    @property
    def renewal_seconds(self) -> float:
        """The time between renewals."""
        return min(max(self.ttl_seconds * _RENEWAL_PART, _MIN_RENEWAL_SECONDS), _MAX_RENEWAL_SECONDS)

    def renewal_timeout(self, settings: Settings) -> float:
        """Return the timeout of a renewal: after it there is still time for another one."""
        default_seconds = check_timeout(self.timeout, settings.facade.timeout_seconds)
        return min(default_seconds, max(self.renewal_seconds, _MIN_RENEWAL_TIMEOUT_SECONDS))


@dataclass(slots=True)
class Grant:
    """A permit that this process was given.

    It counts as lost once its TTL has passed here. The database counts from a later moment, so it never gives the
    permit to another holder before that.
    """

    request: PermitRequest
    holder: str
    token: int
    valid_until: float
    process_id: int = field(default_factory=os.getpid)
    #: Set when the database said so.
    is_refused: bool = False

    @property
    def is_lost(self) -> bool:
        """True if another holder may have the permit. A forked child never has its parent's permit."""
        return self.is_refused or time.monotonic() >= self.valid_until or self.is_inherited

    @property
    def is_inherited(self) -> bool:
        """True in a forked child of the process that was given the permit."""
        return os.getpid() != self.process_id

    def renewed(self, began: float) -> None:
        """Note a renewal that began at this instant of the monotonic clock."""
        self.valid_until = began + self.request.ttl_seconds

    def check(self) -> None:
        """Check that the permit is held.

        Raises:
            LeaseLostError: It may be lost.
        """
        if self.is_lost:
            raise self.lost_error()

    def lost_error(self) -> LeaseLostError:
        """Return the error that says that the permit is lost."""
        return LeaseLostError(self.request.namespace, self.request.name)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments that name the permit."""
        request = self.request
        return {"namespace": request.namespace, "key": request.name, "holder": self.holder, "token": self.token}


class Acquisition:
    """The attempts of one holder to get a permit, until one succeeds or the time is up.

    After an attempt with an unknown outcome, the next one has its operation id. So a late copy of the first attempt
    takes no permit after the holder has released its own.
    """

    def __init__(self, request: PermitRequest) -> None:
        self._request = request
        self.holder = new_holder()
        self._deadline = time.monotonic() + request.wait_seconds
        self._pause = _FIRST_PAUSE_SECONDS
        self._operation_id: str | None = None
        self._began = 0.0
        #: Whether an attempt has got the permit, or may have got it without an answer.
        self.may_hold = False

    def begin(self) -> dict[str, Any]:
        """Return the arguments of the next attempt."""
        self._began, self.may_hold = time.monotonic(), True
        request = self._request
        return {
            "namespace": request.namespace,
            "key": request.name,
            "holder": self.holder,
            "ttl_seconds": request.ttl_seconds,
            "permits": request.permits,
            "idempotency_key": self._operation_id,
            "timeout": request.timeout,
        }

    def grant(self, result: AcquirePermitResult) -> Grant | None:
        """Return the permit that an attempt got, or None."""
        self._operation_id = None
        if result.token is None or not result.ttl_seconds:
            return None
        # A replayed answer may be of an attempt that began long before: the database tells what is left of the TTL.
        remaining = min(self._request.ttl_seconds, result.ttl_seconds) if result.replayed else self._request.ttl_seconds
        return Grant(self._request, self.holder, result.token, self._began + remaining)

    def refused(self, result: AcquirePermitResult, *, is_listening: bool = False) -> float:
        """Return the seconds until the next attempt, longer ones if a wake-up would end the pause.

        Raises:
            LeaseHeldError: The time to wait is over.
        """
        self.may_hold = False
        retry_after = result.retry_after_seconds or 0.0
        self._check_time(LeaseHeldError(self._request.namespace, self._request.name, retry_after))
        # Whoever waits for the same permit to expire should not ask in the same moment.
        longest = _MAX_WOKEN_PAUSE_SECONDS if is_listening else _MAX_PAUSE_SECONDS
        return min(self._next_pause(longest), retry_after + random.uniform(0, _FIRST_PAUSE_SECONDS))  # noqa: S311

    def failed(self, error: KVStoreError) -> float:
        """Return the seconds until the next attempt after one that failed.

        Raises:
            KVStoreError: The error, if it will not pass or the time to wait is over.
        """
        self.may_hold = isinstance(error, UnknownOutcomeError)
        if isinstance(error, UnknownOutcomeError):
            self._operation_id = error.operation_id or None
        if not isinstance(error, PASSING_FAILURES):
            raise error
        self._check_time(error)
        return self._next_pause(_MAX_PAUSE_SECONDS)

    def holder_arguments(self) -> dict[str, Any]:
        """Return the arguments that name the permit of this holder, whatever its token is."""
        return {"namespace": self._request.namespace, "key": self._request.name, "holder": self.holder}

    def _check_time(self, error: KVStoreError) -> None:
        if time.monotonic() >= self._deadline:
            raise error

    def _next_pause(self, longest: float) -> float:
        self._pause = min(self._pause * 2, longest)
        # The last attempt is made when the time is up.
        remaining = self._deadline - time.monotonic()
        return max(0.0, min(random.uniform(self._pause / 2, self._pause), remaining))  # noqa: S311


def spread_seconds() -> float:
    """Return a random pause after a wake-up."""
    return random.uniform(0, _SPREAD_SECONDS)  # noqa: S311 - not a secret
