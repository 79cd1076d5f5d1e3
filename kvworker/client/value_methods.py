"""The facade's methods that change a part of a value."""

from __future__ import annotations

from typing import cast

from kvworker.client.tool_calls import ToolCalls
from kvworker.model import AppendResult, GetAndDeleteResult, JSONArray, JSONValue, MergeResult


class ValueMethods(ToolCalls):
    """Methods for values that several callers change. ``timeout`` and ``idempotency_key`` are as in every method."""

    def append(
        self,
        namespace: str,
        key: str,
        items: JSONArray[JSONValue],
        *,
        max_items: int | None = None,
        ttl_seconds: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> AppendResult:
        """Append items to a list. A missing or expired entry is an empty list.

        Without ``ttl_seconds`` an existing list keeps its expiry.

        Args:
            namespace: The entry's namespace.
            key: The entry's key.
            items: A list of at least one JSON value.
            max_items: The most items that the list keeps. Beyond it the oldest are dropped from the front.
            ttl_seconds: Seconds until the entry expires.
            idempotency_key: Identifies this write.
            timeout: Bound of the call in seconds.

        Returns:
            The list's length afterwards, and how many items were dropped. It does not hold the list.

        Raises:
            InvalidValueTypeError: The entry holds something else than a list.
            QuotaExceededError: The longer list does not fit; nothing was changed.
            ValueSerializationError: An item is not a JSON value.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "items": items,
            "max_items": max_items,
            "ttl_seconds": ttl_seconds,
            "idempotency_key": idempotency_key,
        }
        return cast(AppendResult, self._call("kv_append", timeout, **arguments))

    def merge(
        self,
        namespace: str,
        key: str,
        patch: JSONValue,
        *,
        ttl_seconds: float | None = None,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> MergeResult:
        """Apply a JSON merge patch (RFC 7396) to a value. A missing or expired entry is an empty object.

        The patch's members are set, those that are None are removed, and those that are dicts are merged in the same
        way. Lists are replaced. A patch that is not a dict replaces the value. Without ``ttl_seconds`` an existing
        entry keeps its expiry.

        Args:
            namespace: The entry's namespace.
            key: The entry's key.
            patch: The patch.
            ttl_seconds: Seconds until the entry expires.
            expected_version: Merge only if the entry still has this version.
            idempotency_key: Identifies this write.
            timeout: Bound of the call in seconds.

        Returns:
            The version of the merged value, without the value.

        Raises:
            VersionConflictError: The entry has another version, or there is none; nothing was changed.
            QuotaExceededError: The merged value does not fit; nothing was changed.
            ValueSerializationError: The patch is not a JSON value.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "patch": patch,
            "ttl_seconds": ttl_seconds,
            "expected_version": expected_version,
            "idempotency_key": idempotency_key,
        }
        return cast(MergeResult, self._call("kv_merge", timeout, **arguments))

    def get_and_delete(
        self, namespace: str, key: str, *, idempotency_key: str | None = None, timeout: float | None = None
    ) -> GetAndDeleteResult:
        """Remove an entry and return its value, which no other caller gets.

        A call that is repeated with its ``idempotency_key`` returns the same value again. For that, the operation's
        record keeps the value until it is pruned, a day later by default.

        Returns:
            ``found=False`` if the entry is missing or expired.

        Raises:
            RecordTooLargeError: The value has more than 64 KiB; nothing was changed.
        """
        arguments = {"namespace": namespace, "key": key, "idempotency_key": idempotency_key}
        return cast(GetAndDeleteResult, self._call("kv_get_and_delete", timeout, **arguments))
