"""The facade's methods that change a part of a value."""

from __future__ import annotations

from typing import cast

from kvworker.client.tool_calls import ToolCalls
from kvworker.model import AppendResult, JSONArray, JSONValue


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
