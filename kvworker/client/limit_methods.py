"""The facade's methods of the tools that hold callers back, defined once for every kind of store."""

from __future__ import annotations

from typing import cast

from kvworker.client.tool_calls import ToolCalls
from kvworker.model import (
    AcquirePermitResult,
    RateLimitResult,
    ReleasePermitResult,
    RenewPermitResult,
)


class LimitMethods(ToolCalls):
    """Permits and rate limits, as calls of their tools.

    ``lease`` and ``semaphore`` of a store are easier to use than the methods on permits, which they call.
    """

    def acquire_permit(
        self,
        namespace: str,
        key: str,
        holder: str,
        ttl_seconds: float,
        *,
        permits: int = 1,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> AcquirePermitResult:
        """Take a permit if one is free. A holder that has one keeps it, with a new expiry.

        Args:
            namespace: The namespace of the lease or semaphore.
            key: Its key.
            holder: A name that no other holder uses.
            ttl_seconds: Seconds until the permit expires, unless it is renewed.
            permits: How many holders there may be at the same time, the same number in every call.
            idempotency_key: Identifies this call.
            timeout: Bound of the call in seconds.

        Returns:
            ``acquired=False`` if none was free.

        Raises:
            InvalidValueTypeError: The entry holds something else than permits.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "holder": holder,
            "ttl_seconds": ttl_seconds,
            "permits": permits,
            "idempotency_key": idempotency_key,
        }
        return cast(AcquirePermitResult, self._call("kv_acquire_permit", timeout, **arguments))

    def renew_permit(
        self,
        namespace: str,
        key: str,
        holder: str,
        ttl_seconds: float,
        *,
        token: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> RenewPermitResult:
        """Make a holder's permit expire ``ttl_seconds`` from now; with ``token``, only if it is still this permit.

        Raises:
            LeaseLostError: The permit has expired, or was released or deleted.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "holder": holder,
            "ttl_seconds": ttl_seconds,
            "token": token,
            "idempotency_key": idempotency_key,
        }
        return cast(RenewPermitResult, self._call("kv_renew_permit", timeout, **arguments))

    def release_permit(
        self,
        namespace: str,
        key: str,
        holder: str,
        *,
        token: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> ReleasePermitResult:
        """Give a holder's permit back; with ``token``, only if it is still this permit.

        Returns:
            ``released=False`` if the holder no longer had it.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "holder": holder,
            "token": token,
            "idempotency_key": idempotency_key,
        }
        return cast(ReleasePermitResult, self._call("kv_release_permit", timeout, **arguments))

    def rate_limit(  # noqa: PLR0913 - the numbers of a limit
        self,
        namespace: str,
        name: str,
        limit: int,
        per_seconds: float,
        *,
        burst: int | None = None,
        quantity: int = 1,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> RateLimitResult:
        """Take from a rate limit that all callers share, by the generic cell rate algorithm (GCRA).

        Args:
            namespace: The namespace of the limit.
            name: Its key.
            limit: How much is given back in ``per_seconds``.
            per_seconds: The period of the limit in seconds.
            burst: The most that can be taken at once after a pause. None means ``limit``.
            quantity: How much to take.
            idempotency_key: Identifies this call. A call with the same key repeats the answer and takes nothing.
            timeout: Bound of the call in seconds.

        Returns:
            ``allowed=False`` if too little is left. Nothing was taken then.

        Raises:
            InvalidValueTypeError: The entry holds something else than a rate limit.
        """
        arguments = {
            "namespace": namespace,
            "key": name,
            "limit": limit,
            "per_seconds": per_seconds,
            "burst": burst,
            "quantity": quantity,
            "idempotency_key": idempotency_key,
        }
        return cast(RateLimitResult, self._call("kv_rate_limit", timeout, **arguments))
