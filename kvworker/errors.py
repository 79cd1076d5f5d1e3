"""Every error that kvworker raises.

::

    KVStoreError
    ├── ConfigurationError               the configuration is wrong; nothing was started
    ├── InvalidRequestError              the call is wrong; nothing was done (also a ValueError)
    │   ├── InvalidKeyError              namespace or key
    │   ├── InvalidTTLError              ttl_seconds
    │   ├── ValueSerializationError      the value is not JSON
    │   └── UnsupportedMessageError      the message is of a newer version than this worker
    ├── OperationRefusedError            the store's state forbids the write; nothing was changed
    │   ├── InvalidValueTypeError        increment of something that is not an integer
    │   ├── CounterOverflowError         past a signed 64-bit integer
    │   ├── VersionConflictError         the entry is not of the expected version, or not absent
    │   ├── IdempotencyConflictError     the operation id was used with other arguments
    │   ├── BatchRefusedError            a step of an atomic batch was refused
    │   ├── ReadTooLargeError            a batch would read more than a message should hold
    │   └── QuotaExceededError
    │       ├── NamespaceQuotaExceededError
    │       └── GlobalQuotaExceededError
    ├── PolicyDeniedError                the persona may not do this; nothing was done
    ├── StoreUnavailableError            the database cannot be reached, or is too busy; outcome unknown
    ├── SchemaError                      the database's schema is missing or of another version
    ├── PipelineError                    operations of a pipeline failed, each for itself; the others were applied
    └── QueueError
        ├── QueueUnavailableError        no broker within the timeout; not applied
        ├── OperationNotSentError        its pipeline stopped before it; not applied
        ├── OperationTimeoutError        no result within the timeout; outcome unknown
        ├── OperationExpiredError        the worker reached it after its deadline; not applied
        ├── RedeliveryLimitError         given up after too many lost workers; outcome unknown
        ├── OperationFailedError         the worker failed in a way it should not; outcome unknown
        └── NestedCallError              a task would wait for its own worker; nothing was sent

Errors cross the queue as their class name and ``args``: every error is rebuilt by
``cls(*error.args)``, so ``args`` are JSON-able and positional, and the message is made from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

#: A pipeline's error writes out this many.
_SHOWN_FAILURES: Final = 3


class KVStoreError(Exception):
    """The key-value store failed."""

    def __str__(self) -> str:
        """The first argument, or the class's own docstring."""
        return str(self.args[0]) if self.args else (self.__doc__ or type(self).__name__)


class ConfigurationError(KVStoreError):
    """The configuration is wrong: the message names the path, the value and the fix."""


class InvalidRequestError(KVStoreError, ValueError):
    """The arguments of a call are wrong; nothing was done."""


class InvalidKeyError(InvalidRequestError):
    """A namespace or a key is not a usable name."""


class InvalidTTLError(InvalidRequestError):
    """``ttl_seconds`` is not a finite number above 0."""


class ValueSerializationError(InvalidRequestError):
    """The value is not a JSON value."""


class UnsupportedMessageError(InvalidRequestError):
    """The message's version is newer than what this worker understands."""


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
    """The stored value is not a JSON integer, so it cannot be incremented."""

    reason = "the stored value is not a JSON integer, so it cannot be incremented; set an integer first"


class CounterOverflowError(_EntryError):
    """The counter would leave the range of a signed 64-bit integer."""

    reason = "the counter would leave the range of a signed 64-bit integer"


class VersionConflictError(_EntryError):
    """The entry is not of the version that the write expects; read it again and decide anew.

    ``expected_version`` None means that it was to be absent (``if_absent``), ``actual_version`` None that
    it is absent or expired.
    """

    def __init__(self, namespace: str, key: str, expected_version: int | None, actual_version: int | None) -> None:
        super().__init__(namespace, key)
        self.args = (namespace, key, expected_version, actual_version)
        self.expected_version = expected_version
        self.actual_version = actual_version

    @property
    def reason(self) -> str:  # type: ignore[override]
        """What was expected, and what is there."""
        if self.expected_version is None:
            return f"the entry exists, at version {self.actual_version}, and was to be written only if absent"
        found = "absent" if self.actual_version is None else f"at version {self.actual_version}"
        return f"the entry is {found}, not at the expected version {self.expected_version}; read it again"


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
    """A step of an atomic batch was refused, so none was applied; ``index`` counts from 0."""

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
    """The values that a batch reads are larger together than ``limit_bytes``."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the batch reads values of more than {self.limit_bytes} bytes together; read them in smaller batches"


class QuotaExceededError(OperationRefusedError):
    """The write would exceed a quota.

    ``used_bytes`` is the ledger when the write was refused, ``requested_bytes`` by how much the
    write would have grown it.
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
            f"namespace {self.namespace!r} uses {self.used_bytes} of its quota of {self.quota_bytes} bytes;"
            f" {self.requested_bytes} more do not fit"
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
            f"the store uses {self.used_bytes} of its global quota of {self.quota_bytes} bytes;"
            f" {self.requested_bytes} more do not fit"
        )


class PolicyDeniedError(KVStoreError):
    """The persona's policy does not allow the operation; nothing was done.

    ``persona`` is "" for a call without one, ``namespace`` "" for an operation on the whole store.
    """

    def __init__(self, persona: str, tool: str, namespace: str, detail: str) -> None:
        super().__init__(persona, tool, namespace, detail)
        self.persona = persona
        self.tool = tool
        self.namespace = namespace
        self.detail = detail

    def __str__(self) -> str:
        who = f"persona {self.persona!r}" if self.persona else "a call without a persona"
        where = f" in namespace {self.namespace!r}" if self.namespace else ""
        return f"{who} may not use {self.tool}{where}: {self.detail}"


class StoreUnavailableError(KVStoreError):
    """The database cannot be reached, or is too busy; whether a write was applied is unknown.

    Call again with ``idempotency_key=error.operation_id``: it is then applied exactly once. (The id is
    empty where an adapter was called without one.)
    """

    def __init__(self, detail: str, operation_id: str = "") -> None:
        super().__init__(detail, operation_id)
        self.detail = detail
        self.operation_id = operation_id

    def __str__(self) -> str:
        if not self.operation_id:
            return self.detail
        return f"operation {self.operation_id!r}: {self.detail}; try again with the same idempotency key"


class SchemaError(KVStoreError):
    """The database's schema is missing or of another version; run ``kvworker migrate``."""


class PipelineError(KVStoreError):
    """Operations of a pipeline failed, each for itself; all others were applied.

    ``failures`` has for each its tool, namespace and key, and the name and the arguments of its error, in the order
    in which they failed. Where an outcome is unknown, repeat the pipeline with this ``idempotency_key``.
    """

    def __init__(self, idempotency_key: str, failures: Sequence[Sequence[Any]]) -> None:
        super().__init__(idempotency_key, [list(failure) for failure in failures])
        self.idempotency_key = idempotency_key

    @property
    def failures(self) -> list[list[Any]]:
        """What failed: tool, namespace, key, the error's name and its arguments."""
        failures: list[list[Any]] = self.args[1]
        return failures

    @property
    def errors(self) -> list[KVStoreError]:
        """The error of each failure."""
        return [rebuild_error(name, args) or KVStoreError(name) for *_, name, args in self.failures]

    def __str__(self) -> str:
        shown = [
            f"{tool} of {key!r} in namespace {namespace!r}: {error}"
            for (tool, namespace, key, *_), error in zip(self.failures[:_SHOWN_FAILURES], self.errors, strict=False)
        ]
        more = f"; and {len(self.failures) - len(shown)} more" if len(self.failures) > len(shown) else ""
        count = len(self.failures)
        what = f"{count} operation{'s' if count != 1 else ''} of the pipeline {self.idempotency_key!r}"
        return f"{what} failed, as the handles tell: {'; '.join(shown)}{more}"


class QueueError(KVStoreError):
    """The queue between the caller and the worker failed."""


class _OperationError(QueueError):
    """An operation's fate in the queue; ``operation_id`` names it."""

    reason = ""

    def __init__(self, operation_id: str, detail: str = "") -> None:
        super().__init__(operation_id, detail)
        self.operation_id = operation_id
        self.detail = detail

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"operation {self.operation_id!r}: {self.reason}{detail}"


class QueueUnavailableError(_OperationError):
    """No broker took the message within the timeout: the operation was not applied."""

    reason = "no broker took the message within the timeout, so it was not applied; is the broker running?"


class OperationNotSentError(QueueError):
    """An operation of a pipeline was not sent, so it was not applied."""

    def __str__(self) -> str:
        return f"the operation was not sent, so it was not applied: {', '.join(map(str, self.args))}"


class OperationTimeoutError(_OperationError):
    """No result came within the timeout: whether the operation was applied is unknown.

    Call again with ``idempotency_key=error.operation_id``: it is then applied exactly once.
    """

    reason = (
        "no result within the timeout, so whether it was applied is unknown (is a worker running? `kvworker doctor`"
        " tells); call again with idempotency_key set to the operation id to have it applied exactly once"
    )


class OperationExpiredError(_OperationError):
    """The message reached a worker after its deadline: the operation was not applied."""

    reason = "it reached a worker after its deadline, so it was not applied"


class RedeliveryLimitError(_OperationError):
    """The message was given up after too many redeliveries; the outcome is unknown."""

    reason = "its message was given up after too many redeliveries; the outcome is unknown"


class OperationFailedError(_OperationError):
    """The worker failed in a way it should not have; the outcome is unknown."""

    reason = "the worker failed unexpectedly, so whether it was applied is unknown; see the worker's log"


class NestedCallError(QueueError):
    """A task would wait for a result that only its own worker can produce."""


def rebuild_error(class_name: str, args: Sequence[object]) -> KVStoreError | None:
    """The error that a worker raised, from what crossed the queue; None if it is not one of ours."""
    candidate = globals().get(class_name)
    if not (isinstance(candidate, type) and issubclass(candidate, KVStoreError)):
        return None
    try:
        return candidate(*args)
    except TypeError:
        return None
