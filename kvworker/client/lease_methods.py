"""The facade's leases, semaphores and rate-limited tasks. ``kvworker.durable`` does their work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from kvworker.client.aio import AsyncKeyValueStore
    from kvworker.client.base import KeyValueOperations
    from kvworker.durable.async_leases import AsyncLease
    from kvworker.durable.leases import Lease

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

_TTL_SECONDS = 30.0


class LeaseMethods:
    """Leases and semaphores for threads, and a rate limit for Celery tasks."""

    def lease(
        self,
        namespace: str,
        name: str,
        *,
        ttl_seconds: float = _TTL_SECONDS,
        wait_seconds: float = 0.0,
        auto_renew: bool = False,
        timeout: float | None = None,
    ) -> Lease:
        """Return a lease that one holder at a time has, to use with ``with``.

        Args:
            namespace: The namespace of the lease.
            name: Its key.
            ttl_seconds: Seconds until the lease expires by the database's clock, unless it is renewed.
            wait_seconds: The longest wait for the holder before. 0 tries once.
            auto_renew: Renew the lease in the background until it is released. A holder that hangs then keeps it.
            timeout: Bound of each call in seconds.

        Raises:
            InvalidRequestError: An argument is wrong.
        """
        return self.semaphore(
            namespace,
            name,
            1,
            ttl_seconds=ttl_seconds,
            wait_seconds=wait_seconds,
            auto_renew=auto_renew,
            timeout=timeout,
        )

    def semaphore(
        self,
        namespace: str,
        name: str,
        permits: int,
        *,
        ttl_seconds: float = _TTL_SECONDS,
        wait_seconds: float = 0.0,
        auto_renew: bool = False,
        timeout: float | None = None,
    ) -> Lease:
        """Return one of ``permits`` permits, to use like a lease. Every caller gives the same number."""
        from kvworker.durable.grants import PermitRequest  # noqa: PLC0415 - not every facade needs them
        from kvworker.durable.leases import Lease  # noqa: PLC0415

        request = PermitRequest(namespace, name, permits, ttl_seconds, wait_seconds, auto_renew, timeout)
        return Lease(cast("KeyValueOperations", self), request)

    def rate_limited(
        self,
        namespace: str,
        name: str,
        limit: int,
        per_seconds: float,
        *,
        burst: int | None = None,
        quantity: int = 1,
    ) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
        """Return a decorator that gives a Celery task of yours a rate limit for the whole fleet.

        Put it below ``@app.task``. A run that is not allowed ends, and the task is sent again for the time when it may
        be, as ``Task.retry`` does, but ``max_retries`` does not count it. Each run takes from the limit, one that is
        delivered again too. Outside a worker, a call that is not allowed raises ``RateLimitExceededError``.

        Args:
            namespace: The namespace of the limit.
            name: Its key. Tasks with the same name and numbers share the limit.
            limit: How much is given back in ``per_seconds``.
            per_seconds: The period of the limit in seconds.
            burst: The most that can be taken at once after a pause. None means ``limit``.
            quantity: How much a run takes.

        Raises:
            InvalidRequestError: An argument is wrong.
        """
        from kvworker.durable.rate_limited_tasks import RateLimit, rate_limited  # noqa: PLC0415

        return rate_limited(
            cast("KeyValueOperations", self), RateLimit(namespace, name, limit, per_seconds, burst, quantity)
        )


class AsyncLeaseMethods:
    """Leases and semaphores for coroutines."""

    def lease(
        self,
        namespace: str,
        name: str,
        *,
        ttl_seconds: float = _TTL_SECONDS,
        wait_seconds: float = 0.0,
        auto_renew: bool = False,
        timeout: float | None = None,
    ) -> AsyncLease:
        """Return a lease to use with ``async with``; see ``LeaseMethods.lease``."""
        return self.semaphore(
            namespace,
            name,
            1,
            ttl_seconds=ttl_seconds,
            wait_seconds=wait_seconds,
            auto_renew=auto_renew,
            timeout=timeout,
        )

    def semaphore(
        self,
        namespace: str,
        name: str,
        permits: int,
        *,
        ttl_seconds: float = _TTL_SECONDS,
        wait_seconds: float = 0.0,
        auto_renew: bool = False,
        timeout: float | None = None,
    ) -> AsyncLease:
        """Return one of ``permits`` permits, to use like a lease; see ``LeaseMethods.semaphore``."""
        from kvworker.durable.async_leases import AsyncLease  # noqa: PLC0415 - not every facade needs them
        from kvworker.durable.grants import PermitRequest  # noqa: PLC0415

        request = PermitRequest(namespace, name, permits, ttl_seconds, wait_seconds, auto_renew, timeout)
        return AsyncLease(cast("AsyncKeyValueStore", self), request)
