"""A base for adapters that apply every operation on one key in the same way, as a ``Step``."""

# ruff: noqa: D102 - the contract documents the methods.

from __future__ import annotations

from abc import abstractmethod
from typing import cast

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.model import DeleteResult, IncrementResult, JSONValue, SetResult, Step, StepResult, TouchResult


class StepAdapter(KeyValueStoreAdapter):
    """An adapter whose writes of one key go through one method."""

    @abstractmethod
    def apply_step(self, namespace: str, step: Step, operation_id: str | None) -> StepResult:
        """Apply a step other than ``get``, which has its own method. Its value is encoded as ``step.text``."""

    def set(  # noqa: PLR0913 - the options of a write
        self,
        namespace: str,
        key: str,
        value: JSONValue,
        *,
        ttl_seconds: float | None = None,
        expected_version: int | None = None,
        if_absent: bool = False,
        keep_ttl: bool = False,
        operation_id: str | None = None,
    ) -> SetResult:
        step = Step(
            "set",
            key,
            value=value,
            ttl_seconds=ttl_seconds,
            expected_version=expected_version,
            if_absent=if_absent,
            keep_ttl=keep_ttl,
        )
        return cast(SetResult, self.apply_step(namespace, step, operation_id))

    def delete(
        self, namespace: str, key: str, *, expected_version: int | None = None, operation_id: str | None = None
    ) -> DeleteResult:
        step = Step("delete", key, expected_version=expected_version)
        return cast(DeleteResult, self.apply_step(namespace, step, operation_id))

    def increment(
        self,
        namespace: str,
        key: str,
        *,
        delta: int = 1,
        initial_value: int = 0,
        ttl_seconds: float | None = None,
        operation_id: str | None = None,
    ) -> IncrementResult:
        step = Step("increment", key, delta=delta, initial_value=initial_value, ttl_seconds=ttl_seconds)
        return cast(IncrementResult, self.apply_step(namespace, step, operation_id))

    def touch(
        self,
        namespace: str,
        key: str,
        ttl_seconds: float,
        *,
        expected_version: int | None = None,
        operation_id: str | None = None,
    ) -> TouchResult:
        step = Step("touch", key, ttl_seconds=ttl_seconds, expected_version=expected_version)
        return cast(TouchResult, self.apply_step(namespace, step, operation_id))

    def persist(
        self, namespace: str, key: str, *, expected_version: int | None = None, operation_id: str | None = None
    ) -> TouchResult:
        step = Step("persist", key, expected_version=expected_version)
        return cast(TouchResult, self.apply_step(namespace, step, operation_id))
