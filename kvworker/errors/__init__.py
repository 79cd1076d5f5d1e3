"""Every error that kvworker raises.

::

    KVStoreError
    ├── ConfigurationError               the configuration is wrong; nothing was started
    ├── InvalidRequestError              the call is wrong; nothing was done (also a ValueError)
    │   ├── InvalidKeyError              namespace or key
    │   ├── InvalidTTLError              ttl_seconds
    │   ├── ValueSerializationError      the value is not JSON
    │   └── UnsupportedMessageError      the message is newer than this worker
    ├── OperationRefusedError            the store's state forbids the write; nothing was changed
    │   ├── InvalidValueTypeError        the value is not of the type that the operation needs
    │   ├── CounterOverflowError         the counter would leave the signed 64-bit range
    │   ├── VersionConflictError         the entry has another version, or exists already
    │   ├── LeaseHeldError               others hold the lease, or all permits
    │   ├── LeaseLostError               the lease or permit has expired or was released
    │   ├── RateLimitExceededError       a rate limit does not allow the call yet
    │   ├── IdempotencyConflictError     the operation id was used with other arguments
    │   │   └── StepConflictError        the durable step was begun with other arguments
    │   ├── StepInProgressError          another caller holds the durable step
    │   ├── EffectUnknownError           the durable step's effect may have happened, or not
    │   ├── StepLostError                the durable step is no longer held with this token
    │   ├── BatchRefusedError            a step of an atomic batch was refused
    │   ├── ReadTooLargeError            a batch would read more than one message may hold
    │   ├── ReplayTooLargeError          a batch that was applied before reads more than that by now
    │   ├── RecordTooLargeError          the value to return and remove is larger than a record may keep
    │   └── QuotaExceededError
    │       ├── NamespaceQuotaExceededError
    │       ├── GlobalQuotaExceededError
    │       └── LimitExceededError       too many entries, operation records or namespaces
    ├── StepUnrecordedError              the durable step ended, and its result does not fit into the store
    ├── StepFailedError                  the durable step failed, and the error was recorded
    ├── PolicyDeniedError                the persona may not do this; nothing was done
    ├── UnknownOutcomeError              unknown whether it was applied; also of three classes below QueueError
    │   └── StoreUnavailableError        the database is unreachable or too busy
    ├── SchemaError                      the database's schema is missing or of another version
    ├── PipelineError                    operations of a pipeline failed, each on its own; the others were applied
    └── QueueError
        ├── QueueUnavailableError        no broker accepted it within the timeout; not applied
        ├── OperationNotSentError        too many calls were in flight, or its pipeline ended first; not applied
        ├── OperationTimeoutError        no result within the timeout; outcome unknown
        ├── OperationExpiredError        it waited in the queue for too long; not applied
        ├── RedeliveryLimitError         too many workers were lost with it; outcome unknown
        ├── OperationFailedError         the worker failed unexpectedly; outcome unknown
        └── NestedCallError              a task would wait for its own worker; nothing was sent

Errors cross the queue as their class name and ``args``. ``cls(*error.args)`` rebuilds every error, so its ``args`` are
JSON-able and positional, and its message is made from them. This package imports nothing else of kvworker.
"""

from kvworker.errors.base import (
    KVStoreError,
    UnknownOutcomeError,
    rebuild_error,
)
from kvworker.errors.deployment import (
    ConfigurationError,
    SchemaError,
    StoreUnavailableError,
    extra_needed,
)
from kvworker.errors.queue import (
    BROKER_ANSWERED,
    LOGIN_REFUSED,
    RESULTS_REFUSED,
    NestedCallError,
    OperationExpiredError,
    OperationFailedError,
    OperationNotSentError,
    OperationTimeoutError,
    PipelineError,
    QueueError,
    QueueUnavailableError,
    RedeliveryLimitError,
)
from kvworker.errors.refusals import (
    BatchRefusedError,
    CounterOverflowError,
    GlobalQuotaExceededError,
    IdempotencyConflictError,
    InvalidValueTypeError,
    LeaseHeldError,
    LeaseLostError,
    LimitExceededError,
    NamespaceQuotaExceededError,
    OperationRefusedError,
    QuotaExceededError,
    RateLimitExceededError,
    ReadTooLargeError,
    RecordTooLargeError,
    ReplayTooLargeError,
    VersionConflictError,
)
from kvworker.errors.requests import (
    InvalidKeyError,
    InvalidRequestError,
    InvalidTTLError,
    PolicyDeniedError,
    UnsupportedMessageError,
    ValueSerializationError,
)
from kvworker.errors.steps import (
    EffectUnknownError,
    StepConflictError,
    StepFailedError,
    StepInProgressError,
    StepLostError,
    StepUnrecordedError,
)

__all__ = [
    "BROKER_ANSWERED",
    "LOGIN_REFUSED",
    "RESULTS_REFUSED",
    "BatchRefusedError",
    "ConfigurationError",
    "CounterOverflowError",
    "EffectUnknownError",
    "GlobalQuotaExceededError",
    "IdempotencyConflictError",
    "InvalidKeyError",
    "InvalidRequestError",
    "InvalidTTLError",
    "InvalidValueTypeError",
    "KVStoreError",
    "LeaseHeldError",
    "LeaseLostError",
    "LimitExceededError",
    "NamespaceQuotaExceededError",
    "NestedCallError",
    "OperationExpiredError",
    "OperationFailedError",
    "OperationNotSentError",
    "OperationRefusedError",
    "OperationTimeoutError",
    "PipelineError",
    "PolicyDeniedError",
    "QueueError",
    "QueueUnavailableError",
    "QuotaExceededError",
    "RateLimitExceededError",
    "ReadTooLargeError",
    "RecordTooLargeError",
    "RedeliveryLimitError",
    "ReplayTooLargeError",
    "SchemaError",
    "StepConflictError",
    "StepFailedError",
    "StepInProgressError",
    "StepLostError",
    "StepUnrecordedError",
    "StoreUnavailableError",
    "UnknownOutcomeError",
    "UnsupportedMessageError",
    "ValueSerializationError",
    "VersionConflictError",
    "extra_needed",
    "rebuild_error",
]
