"""Refusals: the state of the store forbids an operation. Nothing was changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvworker.errors.base import KVStoreError, rebuild_error
from kvworker.wording import counted, noun

_INTEGER: Final = "a JSON integer"


class OperationRefusedError(KVStoreError):
    """The state of the store forbids the operation; nothing was changed."""


class _EntryError(OperationRefusedError):
    """An operation on one entry was refused."""

    reason = ""

    def __init__(self, namespace: str, key: str) -> None:
        super().__init__(namespace, key)
        self.namespace = namespace
        self.key = key

    def __str__(self) -> str:
        return f"{self.reason} (namespace {self.namespace!r}, key {self.key!r})"


class InvalidValueTypeError(_EntryError):
    """The stored value is not of the type that the operation needs, such as a JSON integer to increment.

    ``needed`` names that type with its article.
    """

    def __init__(self, namespace: str, key: str, needed: str = _INTEGER) -> None:
        super().__init__(namespace, key)
        if needed != _INTEGER:
            # Older callers rebuild the error of an increment from two arguments.
            self.args = (namespace, key, needed)
        self.needed = needed

    @property
    def reason(self) -> str:  # type: ignore[override]
        """The type that the value should have."""
        return f"the stored value is not {self.needed}; use another key, or store {self.needed} first"


class CounterOverflowError(_EntryError):
    """The counter would leave the range of a signed 64-bit integer."""

    reason = "the counter would leave the range of a signed 64-bit integer"


class VersionConflictError(_EntryError):
    """The entry does not have the version that the write expects. Read it again before you decide what to write.

    ``expected_version`` None means that the write expected no entry (``if_absent``). ``actual_version`` None means
    that the entry is absent or expired.
    """

    def __init__(self, namespace: str, key: str, expected_version: int | None, actual_version: int | None) -> None:
        super().__init__(namespace, key)
        self.args = (namespace, key, expected_version, actual_version)
        self.expected_version = expected_version
        self.actual_version = actual_version

    @property
    def reason(self) -> str:  # type: ignore[override]
        """The expected version and the actual one."""
        if self.expected_version is None:
            return f"the entry exists, at version {self.actual_version}, but the write required it to be absent"
        actual = "absent" if self.actual_version is None else f"at version {self.actual_version}"
        return f"the entry is {actual}, not at the expected version {self.expected_version}; read it again"


class LeaseLostError(_EntryError):
    """The caller no longer holds the lease or permit: it has expired, or was released or deleted."""

    reason = "the lease or permit is lost: it has expired, or was released or deleted, and another holder may have it"


class _TooEarlyError(_EntryError):
    """What the caller wants may be free after ``retry_after_seconds``."""

    def __init__(self, namespace: str, key: str, retry_after_seconds: float) -> None:
        super().__init__(namespace, key)
        self.args = (namespace, key, retry_after_seconds)
        self.retry_after_seconds = retry_after_seconds


class LeaseHeldError(_TooEarlyError):
    """Others hold the lease, or all permits of the semaphore.

    The first of them expires after ``retry_after_seconds`` unless its holder renews it.
    """

    @property
    def reason(self) -> str:  # type: ignore[override]
        """When to try again."""
        return f"others hold it, and the first of them expires in {self.retry_after_seconds:.3g} s unless it is renewed"


class RateLimitExceededError(_TooEarlyError):
    """A rate limit does not allow a call yet. It may be allowed after ``retry_after_seconds``."""

    @property
    def reason(self) -> str:  # type: ignore[override]
        """When to try again."""
        return f"the rate limit does not allow the call yet; try again in {self.retry_after_seconds:.3g} s"


class IdempotencyConflictError(OperationRefusedError):
    """The operation id was already used with other arguments."""

    def __init__(self, namespace: str, operation_id: str) -> None:
        super().__init__(namespace, operation_id)
        self.namespace = namespace
        self.operation_id = operation_id

    def __str__(self) -> str:
        return (
            f"operation id {self.operation_id!r} was already used in namespace {self.namespace!r}"
            " with other arguments; use a new id for a new operation"
        )


class BatchRefusedError(OperationRefusedError):
    """A step of an atomic batch was refused, so none was applied. ``index`` counts from 0."""

    def __init__(self, index: int, error_name: str, error_args: Sequence[object]) -> None:
        super().__init__(index, error_name, list(error_args))
        self.index = index

    @property
    def error(self) -> KVStoreError:
        """The step's own error."""
        _, name, args = self.args
        return rebuild_error(name, args) or KVStoreError(name)

    def __str__(self) -> str:
        return f"operations[{self.index}] of the batch was refused, so nothing was changed: {self.error}"


class ReadTooLargeError(OperationRefusedError):
    """A batch would read values of more than ``limit_bytes`` in total."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the batch would read more than {self.limit_bytes} bytes of values; read them in smaller batches"


class ReplayTooLargeError(OperationRefusedError):
    """The batch was applied before, and the values that it reads are by now more than ``limit_bytes`` in total."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"the batch was applied before, and reads more than {self.limit_bytes} bytes of values by now; read them"
            " individually"
        )


class RecordTooLargeError(_EntryError):
    """The value to return and remove has ``size_bytes``, more than the ``limit_bytes`` that a record may keep."""

    def __init__(self, namespace: str, key: str, limit_bytes: int, size_bytes: int) -> None:
        super().__init__(namespace, key)
        self.args = (namespace, key, limit_bytes, size_bytes)
        self.limit_bytes = limit_bytes
        self.size_bytes = size_bytes

    @property
    def reason(self) -> str:  # type: ignore[override]
        """The bytes and their limit."""
        return (
            f"the value has {self.size_bytes} bytes, and the record of its removal may keep {self.limit_bytes};"
            " get it, and then delete it at its version"
        )


class QuotaExceededError(OperationRefusedError):
    """The write would exceed a quota or a limit.

    A quota's ``used_bytes`` is the ledger's size when the write was refused, and ``requested_bytes`` is the growth that
    the write needed.
    """


class NamespaceQuotaExceededError(QuotaExceededError):
    """The write would exceed the namespace's quota."""

    def __init__(self, namespace: str, quota_bytes: int, used_bytes: int, requested_bytes: int) -> None:
        super().__init__(namespace, quota_bytes, used_bytes, requested_bytes)
        self.namespace = namespace
        self.quota_bytes = quota_bytes
        self.used_bytes = used_bytes
        self.requested_bytes = requested_bytes

    def __str__(self) -> str:
        return (
            f"namespace {self.namespace!r} uses {self.used_bytes} of its quota of {counted(self.quota_bytes, 'byte')};"
            f" {self.requested_bytes} more {noun(self.requested_bytes, 'does', 'do')} not fit"
        )


class GlobalQuotaExceededError(QuotaExceededError):
    """The write would exceed the quota of the whole store."""

    def __init__(self, quota_bytes: int, used_bytes: int, requested_bytes: int) -> None:
        super().__init__(quota_bytes, used_bytes, requested_bytes)
        self.quota_bytes = quota_bytes
        self.used_bytes = used_bytes
        self.requested_bytes = requested_bytes

    def __str__(self) -> str:
        return (
            f"the store uses {self.used_bytes} of its global quota of {counted(self.quota_bytes, 'byte')};"
            f" {self.requested_bytes} more {noun(self.requested_bytes, 'does', 'do')} not fit"
        )


class LimitExceededError(QuotaExceededError):
    """The write would exceed the limit of a namespace's entries or operation records, or that of namespaces.

    ``counted`` is ``entries``, ``records`` or ``namespaces``, and ``namespace`` is None for the last. ``count`` is how
    many there were when the write was refused.
    """

    def __init__(self, counted: str, namespace: str | None, limit: int, count: int) -> None:
        super().__init__(counted, namespace, limit, count)
        self.counted = counted
        self.namespace = namespace
        self.limit = limit
        self.count = count

    def __str__(self) -> str:
        if self.counted == "namespaces":
            limit = counted(self.limit, "namespace")
            return f"the store has {self.count} of at most {limit}; clear some, or raise namespace_limit"
        if self.counted == "records":
            limit = counted(self.limit, "operation record")
            return (
                f"namespace {self.namespace!r} keeps {self.count} of at most {limit}; wait until the oldest are past"
                " their retention, or raise namespace_record_limit or the namespace's own quota"
            )
        limit = counted(self.limit, "entry", "entries")
        return (
            f"namespace {self.namespace!r} has {self.count} of at most {limit}; delete some, or raise"
            " namespace_entry_limit or the namespace's own quota"
        )
