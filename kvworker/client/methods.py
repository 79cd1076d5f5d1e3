"""The facade's methods: one for each tool, defined once for every kind of store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from kvworker.client.limit_methods import LimitMethods
from kvworker.client.step_methods import StepMethods
from kvworker.client.value_methods import ValueMethods
from kvworker.model import (
    DEFAULT_PAGE_ROWS,
    BatchResult,
    ClearResult,
    DeleteResult,
    GetResult,
    IncrementResult,
    JSONValue,
    KeyList,
    LedgerUsage,
    NamespaceList,
    QuotaResult,
    SetResult,
    TouchResult,
)


class FacadeMethods(LimitMethods, ValueMethods, StepMethods):
    """All methods that stand for a tool.

    Two parameters mean the same in every method:

    - ``timeout`` bounds the whole call, in seconds. None means the configured default.
    - ``idempotency_key`` identifies a write: however often you call with the same key, it is applied once. None means
      a fresh one.

    Every method may raise any of the errors that ``kvworker.errors`` lists, ``InvalidRequestError`` for wrong arguments
    and ``OperationTimeoutError`` for an unknown outcome among them.
    """

    def get(self, namespace: str, key: str, *, timeout: float | None = None) -> GetResult:
        """Read an entry.

        Returns:
            The value with its version and TTL. A missing or expired entry gives ``found=False``.
        """
        return cast(GetResult, self._call("kv_get", timeout, namespace=namespace, key=key))

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
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> SetResult:
        """Write an entry.

        Args:
            namespace: The entry's namespace.
            key: The entry's key.
            value: Any JSON value.
            ttl_seconds: Seconds until the entry expires. Without it the entry never expires.
            expected_version: Write only if the entry still has this version.
            if_absent: Write only if the entry does not exist.
            keep_ttl: Leave the expiry of an existing entry as it is.
            idempotency_key: Identifies this write.
            timeout: Bound of the call in seconds.

        Raises:
            VersionConflictError: ``expected_version`` or ``if_absent`` does not hold; nothing was changed.
            QuotaExceededError: The value does not fit; nothing was changed.
            ValueSerializationError: The value is not a JSON value.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "value": value,
            "ttl_seconds": ttl_seconds,
            "expected_version": expected_version,
            "if_absent": if_absent,
            "keep_ttl": keep_ttl,
            "idempotency_key": idempotency_key,
        }
        return cast(SetResult, self._call("kv_set", timeout, **arguments))

    def delete(
        self,
        namespace: str,
        key: str,
        *,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Remove an entry; with ``expected_version``, only if it still has this version.

        Returns:
            ``deleted=False`` if the entry did not exist.

        Raises:
            VersionConflictError: The entry has another version; nothing was changed.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "expected_version": expected_version,
            "idempotency_key": idempotency_key,
        }
        return cast(DeleteResult, self._call("kv_delete", timeout, **arguments))

    def increment(
        self,
        namespace: str,
        key: str,
        *,
        delta: int = 1,
        initial_value: int = 0,
        ttl_seconds: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> IncrementResult:
        """Add ``delta`` to a counter. A missing or expired counter becomes ``initial_value + delta``.

        Without ``ttl_seconds`` an existing counter keeps its expiry.

        Raises:
            InvalidValueTypeError: The entry holds something else than an integer.
            CounterOverflowError: The result does not fit into a signed 64-bit integer.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "delta": delta,
            "initial_value": initial_value,
            "ttl_seconds": ttl_seconds,
            "idempotency_key": idempotency_key,
        }
        return cast(IncrementResult, self._call("kv_increment", timeout, **arguments))

    def touch(
        self,
        namespace: str,
        key: str,
        ttl_seconds: float,
        *,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> TouchResult:
        """Make an entry expire ``ttl_seconds`` from now; with ``expected_version``, only if it still has this version.

        Returns:
            ``found=False`` if the entry is missing or expired.

        Raises:
            VersionConflictError: The entry has another version, or there is none; nothing was changed.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "ttl_seconds": ttl_seconds,
            "expected_version": expected_version,
            "idempotency_key": idempotency_key,
        }
        return cast(TouchResult, self._call("kv_touch", timeout, **arguments))

    def persist(
        self,
        namespace: str,
        key: str,
        *,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> TouchResult:
        """Remove an entry's expiry; with ``expected_version``, only if it still has this version.

        Returns:
            ``found=False`` if the entry is missing or expired.

        Raises:
            VersionConflictError: The entry has another version, or there is none; nothing was changed.
        """
        arguments = {
            "namespace": namespace,
            "key": key,
            "expected_version": expected_version,
            "idempotency_key": idempotency_key,
        }
        return cast(TouchResult, self._call("kv_persist", timeout, **arguments))

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        limit: int = DEFAULT_PAGE_ROWS,
        cursor: str | None = None,
        include_values: bool = False,
        timeout: float | None = None,
    ) -> KeyList:
        """List a page of a namespace's entries in the order of their keys.

        No snapshot is held between pages, so a page may or may not show an entry that was written meanwhile.

        Args:
            namespace: The namespace to list.
            prefix: List only the keys that start with this.
            limit: The most entries in a page, at most 1000.
            cursor: The ``next_cursor`` of the page before. None gives the first page.
            include_values: Give the values too. Such a page ends early once its values reach 4 MiB.
            timeout: Bound of the call in seconds.
        """
        arguments = {
            "namespace": namespace,
            "prefix": prefix,
            "limit": limit,
            "cursor": cursor,
            "include_values": include_values,
        }
        return cast(KeyList, self._call("kv_list_keys", timeout, **arguments))

    def list_namespaces(
        self,
        *,
        prefix: str = "",
        limit: int = DEFAULT_PAGE_ROWS,
        cursor: str | None = None,
        timeout: float | None = None,
    ) -> NamespaceList:
        """List a page of the namespaces that have entries, in order, each with its usage.

        ``prefix``, ``limit`` and ``cursor`` work as in ``list_keys``.
        """
        return cast(NamespaceList, self._call("kv_list_namespaces", timeout, prefix=prefix, limit=limit, cursor=cursor))

    def clear(self, namespace: str, *, idempotency_key: str | None = None, timeout: float | None = None) -> ClearResult:
        """Remove every entry of a namespace in one transaction."""
        return cast(ClearResult, self._call("kv_clear", timeout, namespace=namespace, idempotency_key=idempotency_key))

    def usage(self, namespace: str | None = None, *, timeout: float | None = None) -> LedgerUsage:
        """Return the usage and the quota of a namespace, or of the whole store if you name none."""
        return cast(LedgerUsage, self._call("kv_usage", timeout, namespace=namespace))

    def set_quota(
        self,
        namespace: str,
        quota_bytes: int | None,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> QuotaResult:
        """Give a namespace its own quota in bytes; None restores the configured quota."""
        arguments = {"namespace": namespace, "quota_bytes": quota_bytes, "idempotency_key": idempotency_key}
        return cast(QuotaResult, self._call("kv_set_quota", timeout, **arguments))

    def batch(
        self,
        namespace: str,
        operations: Sequence[Mapping[str, Any]],
        *,
        atomic: bool = True,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> BatchResult:
        """Run up to 1000 operations on one namespace, in order, in one message and one transaction.

        Args:
            namespace: The namespace of all operations.
            operations: Dicts with a ``tool`` that works on one key, such as ``kv_get``, and its other arguments.
            atomic: Apply all operations or none. Without it each operation has its own result or its own error.
            idempotency_key: Identifies the batch as a whole.
            timeout: Bound of the call in seconds.

        Raises:
            BatchRefusedError: An operation of an atomic batch was refused, so none was applied.
            QuotaExceededError: An atomic batch does not fit, so nothing was applied.
        """
        arguments = {
            "namespace": namespace,
            "operations": operations,
            "atomic": atomic,
            "idempotency_key": idempotency_key,
        }
        return cast(BatchResult, self._call("kv_batch", timeout, **arguments))
