"""The contract's methods that change a part of a value. Each is a computed step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

from kvworker.model import (
    AppendResult,
    AppendStep,
    GetAndDeleteResult,
    GetAndDeleteStep,
    JSONArray,
    JSONValue,
    MergeResult,
    MergeStep,
    Step,
    StepResult,
)


class ValueMethods(ABC):
    """Methods of an adapter that applies computed steps."""

    @abstractmethod
    def apply_step(self, namespace: str, step: Step, operation_id: str | None) -> StepResult:
        """Apply a step as an operation; see ``KeyValueStoreAdapter``."""

    def append(
        self,
        namespace: str,
        key: str,
        items: JSONArray[JSONValue],
        *,
        max_items: int | None = None,
        ttl_seconds: float | None = None,
        operation_id: str | None = None,
    ) -> AppendResult:
        """Append items to a list atomically. A missing or expired entry is an empty list.

        Without ``ttl_seconds`` a live list keeps its TTL.

        Args:
            namespace: The namespace.
            key: The key.
            items: At least one JSON value.
            max_items: The most items that stay. Beyond it the first ones are dropped, new ones among them.
            ttl_seconds: When the entry expires.
            operation_id: The idempotency key.

        Raises:
            InvalidValueTypeError: the stored value is not a list.
            InvalidRequestError: ``items`` is not a list or is empty, or ``max_items`` is below 1.
            ValueSerializationError: an item is not JSON.
            InvalidTTLError: ``ttl_seconds`` is not a finite number above 0.
            NamespaceQuotaExceededError, GlobalQuotaExceededError: the list does not fit.
            IdempotencyConflictError: the operation id was used with other arguments.
        """
        step = AppendStep("append", key, ttl_seconds=ttl_seconds, items=items, max_items=max_items)
        return cast(AppendResult, self.apply_step(namespace, step, operation_id))

    def merge(
        self,
        namespace: str,
        key: str,
        patch: JSONValue,
        *,
        ttl_seconds: float | None = None,
        expected_version: int | None = None,
        operation_id: str | None = None,
    ) -> MergeResult:
        """Apply a JSON merge patch (RFC 7396) atomically. A missing or expired entry is an empty object.

        Without ``ttl_seconds`` a live entry keeps its TTL.

        Raises:
            ValueSerializationError: the patch is not JSON.
            InvalidTTLError: ``ttl_seconds`` is not a finite number above 0.
            VersionConflictError: the live entry does not have ``expected_version``, or there is none.
            NamespaceQuotaExceededError, GlobalQuotaExceededError: the merged value does not fit.
            IdempotencyConflictError: the operation id was used with other arguments.
        """
        step = MergeStep("merge", key, ttl_seconds=ttl_seconds, expected_version=expected_version, patch=patch)
        return cast(MergeResult, self.apply_step(namespace, step, operation_id))

    def get_and_delete(self, namespace: str, key: str, *, operation_id: str | None = None) -> GetAndDeleteResult:
        """Remove an entry and return its value. A missing or expired entry gives ``found=False``; that is recorded.

        The operation's record keeps the value until it is pruned, and a replay returns it. In a batch it counts as a
        read value.

        Raises:
            RecordTooLargeError: the value has more than 64 KiB.
            IdempotencyConflictError: the operation id was used with other arguments.
        """
        step = GetAndDeleteStep("get_and_delete", key)
        return cast(GetAndDeleteResult, self.apply_step(namespace, step, operation_id))
