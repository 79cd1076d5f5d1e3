"""Applies a step by the adapter method of its action, for adapters that do not override ``apply_step``."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kvworker.errors import InvalidRequestError
from kvworker.model import Step, StepResult

if TYPE_CHECKING:
    from kvworker.adapters.contract import KeyValueStoreAdapter


def call_method(adapter: KeyValueStoreAdapter, namespace: str, step: Step, operation_id: str | None) -> StepResult:
    """Call the method of the step's action, which encodes the value again.

    Raises:
        InvalidRequestError: There is none: the adapter does not know computed steps.
    """
    match step.action:
        case "get":
            return adapter.get(namespace, step.key)
        case "set":
            return adapter.set(
                namespace,
                step.key,
                step.value,
                ttl_seconds=step.ttl_seconds,
                expected_version=step.expected_version,
                if_absent=step.if_absent,
                keep_ttl=step.keep_ttl,
                operation_id=operation_id,
            )
        case "delete":
            return adapter.delete(
                namespace, step.key, expected_version=step.expected_version, operation_id=operation_id
            )
        case "increment":
            return adapter.increment(
                namespace,
                step.key,
                delta=step.delta,
                initial_value=step.initial_value,
                ttl_seconds=step.ttl_seconds,
                operation_id=operation_id,
            )
        case "touch":
            ttl_seconds = cast(float, step.ttl_seconds)
            return adapter.touch(namespace, step.key, ttl_seconds, operation_id=operation_id, **_condition(step))
        case "persist":
            return adapter.persist(namespace, step.key, operation_id=operation_id, **_condition(step))
        case _:
            raise InvalidRequestError(f"{type(adapter).__name__} does not support {step.action}")


def _condition(step: Step) -> dict[str, int]:
    """Return the version that a step expects, if it does: adapters of older releases do not take the argument."""
    return {} if step.expected_version is None else {"expected_version": step.expected_version}
