"""The facade's methods for durable steps, one for each tool. ``once`` and ``step`` are made of them."""

from __future__ import annotations

from typing import cast

from kvworker.client.tool_calls import ToolCalls
from kvworker.model import (
    DEFAULT_LEASE_SECONDS,
    JSONValue,
    StepBeginResult,
    StepFinishResult,
    StepRenewResult,
    StepStatusResult,
)


class StepMethods(ToolCalls):
    """Methods that reserve, renew and finish a durable step.

    ``timeout`` and ``idempotency_key`` are as in every method. Most programs use ``once`` or ``step`` instead.
    """

    def step_begin(  # noqa: PLR0913 - the options of a write
        self,
        namespace: str,
        key: str,
        *,
        holder: str | None = None,
        arguments: JSONValue = None,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        takeover_token: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> StepBeginResult:
        """Reserve a durable step before its effect happens.

        Args:
            namespace: The step's namespace.
            key: The step's key: one for each effect.
            holder: The name of the caller that others see. It gives no right to the step; the token does.
            arguments: What the effect depends on, as any JSON value. A call with other arguments is refused. Only their
                digest is kept. None compares nothing.
            lease_seconds: How long the step is held without a renewal.
            takeover_token: The token of an unknown step, to take it over.
            idempotency_key: Only for a repetition of this very call whose answer was lost.
            timeout: Bound of the call in seconds.

        Returns:
            ``state`` is ``reserved`` if you hold the step. Otherwise you must not perform the effect: the step is
            ``in_progress``, ``unknown``, ``done`` or ``failed``.

        Raises:
            StepConflictError: The step was begun with other arguments.
            InvalidValueTypeError: The entry is not a durable step.
        """
        given = {
            "namespace": namespace,
            "key": key,
            "holder": holder,
            "arguments": arguments,
            "lease_seconds": lease_seconds,
            "takeover_token": takeover_token,
            "idempotency_key": idempotency_key,
        }
        return cast(StepBeginResult, self._call("kv_step_begin", timeout, **given))

    def step_renew(
        self,
        namespace: str,
        key: str,
        token: int,
        *,
        lease_seconds: float = DEFAULT_LEASE_SECONDS,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> StepRenewResult:
        """Hold a durable step for another ``lease_seconds`` from now, even if the lease ran out meanwhile.

        Raises:
            StepLostError: Another caller took over, settled or removed the step.
            InvalidValueTypeError: The entry is not a durable step.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "token": token,
            "lease_seconds": lease_seconds,
            "idempotency_key": idempotency_key,
        }
        return cast(StepRenewResult, self._call("kv_step_renew", timeout, **arguments))

    def step_finish(  # noqa: PLR0913 - the options of a write
        self,
        namespace: str,
        key: str,
        token: int,
        state: str,
        *,
        value: JSONValue = None,
        unrecorded: str | None = None,
        ttl_seconds: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> StepFinishResult:
        """Record how a durable step ended. The same outcome once more is accepted.

        Args:
            namespace: The step's namespace.
            key: The step's key.
            token: The token that ``step_begin`` gave.
            state: ``done`` or ``failed``; ``released`` if the effect did not happen, so that the step may run again;
                ``unknown`` if you cannot know.
            value: The result, or for ``failed`` what went wrong: any JSON value.
            unrecorded: Why there is no value although there should be one: ``not_json``, ``too_large`` or ``quota``.
                Such an outcome always fits into the quotas.
            ttl_seconds: For how long the outcome is kept. Afterwards the effect could happen again. Without it the
                outcome is kept until it is deleted.
            idempotency_key: Identifies this write.
            timeout: Bound of the call in seconds.

        Raises:
            StepLostError: Another caller took over, settled or removed the step. The outcome was not recorded.
            QuotaExceededError: The value does not fit; nothing was changed.
            InvalidValueTypeError: The entry is not a durable step.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "token": token,
            "state": state,
            "value": value,
            "unrecorded": unrecorded,
            "ttl_seconds": ttl_seconds,
            "idempotency_key": idempotency_key,
        }
        return cast(StepFinishResult, self._call("kv_step_finish", timeout, **arguments))

    def step_status(self, namespace: str, key: str, *, timeout: float | None = None) -> StepStatusResult:
        """Tell what is known about a durable step, without changing anything. A missing one is ``absent``.

        Raises:
            InvalidValueTypeError: The entry is not a durable step.
        """
        return cast(StepStatusResult, self._call("kv_step_status", timeout, namespace=namespace, key=key))
