"""The outcomes of calls and operations, in the few words that metrics, logs and reports use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from kvworker import errors


class Outcome(NamedTuple):
    """The end of a call or an operation.

    Attributes:
        name: ``applied`` (a write), ``read``, ``replayed``, ``refused`` (by the store's state), ``denied`` (by policy),
            ``invalid`` (the request), ``expired`` (too late, not applied), ``unsent`` (a call that was not sent),
            ``unknown`` (a write that may be applied) or ``failed``.
        reason: The reason for a refusal or a failure; "" for a success.
    """

    name: str
    reason: str = ""


APPLIED: Final = Outcome("applied")
READ: Final = Outcome("read")
REPLAYED: Final = Outcome("replayed")
EXPIRED: Final = Outcome("expired", "deadline")
#: The outcome of an error that is not ours.
UNEXPECTED: Final = Outcome("failed", "unexpected")
#: The end of a call whose wait was interrupted, for example by a cancellation.
INTERRUPTED: Final = Outcome("unknown", "interrupted")

_BY_ERROR: Final[Mapping[type[BaseException], Outcome]] = {
    errors.ConfigurationError: Outcome("failed", "configuration"),
    errors.SchemaError: Outcome("failed", "schema"),
    errors.InvalidRequestError: Outcome("invalid", "request"),
    errors.InvalidKeyError: Outcome("invalid", "key"),
    errors.InvalidTTLError: Outcome("invalid", "ttl"),
    errors.ValueSerializationError: Outcome("invalid", "value"),
    errors.UnsupportedMessageError: Outcome("invalid", "unsupported"),
    errors.OperationRefusedError: Outcome("refused", "other"),
    errors.InvalidValueTypeError: Outcome("refused", "value_type"),
    errors.CounterOverflowError: Outcome("refused", "counter_overflow"),
    errors.VersionConflictError: Outcome("refused", "version_conflict"),
    errors.IdempotencyConflictError: Outcome("refused", "idempotency_conflict"),
    errors.StepInProgressError: Outcome("refused", "step_in_progress"),
    errors.EffectUnknownError: Outcome("refused", "effect_unknown"),
    errors.StepLostError: Outcome("refused", "step_lost"),
    errors.StepConflictError: Outcome("refused", "step_conflict"),
    errors.StepUnrecordedError: Outcome("refused", "step_unrecorded"),
    errors.StepFailedError: Outcome("refused", "step_failed"),
    errors.ReadTooLargeError: Outcome("refused", "read_too_large"),
    errors.ReplayTooLargeError: Outcome("refused", "replay_too_large"),
    errors.RecordTooLargeError: Outcome("refused", "record_too_large"),
    errors.NamespaceQuotaExceededError: Outcome("refused", "namespace_quota"),
    errors.GlobalQuotaExceededError: Outcome("refused", "global_quota"),
    errors.LimitExceededError: Outcome("refused", "limit"),
    errors.PolicyDeniedError: Outcome("denied", "policy"),
    errors.OperationExpiredError: EXPIRED,
    errors.QueueUnavailableError: Outcome("unsent", "queue_unavailable"),
    errors.OperationNotSentError: Outcome("unsent", "calls_in_flight"),
    errors.NestedCallError: Outcome("unsent", "nested"),
    errors.StoreUnavailableError: Outcome("unknown", "store_unavailable"),
    errors.OperationTimeoutError: Outcome("unknown", "timeout"),
    errors.RedeliveryLimitError: Outcome("unknown", "redelivery_limit"),
    errors.OperationFailedError: Outcome("unknown", "worker_failed"),
    errors.UnknownOutcomeError: Outcome("unknown", "other"),
    errors.KVStoreError: UNEXPECTED,
    Exception: UNEXPECTED,
    BaseException: INTERRUPTED,
}

#: Every outcome. A report has no other, so that the values of a metric's labels are known.
OUTCOMES: Final = (
    APPLIED,
    READ,
    REPLAYED,
    *dict.fromkeys(_BY_ERROR.values()),
    *(outcome._replace(name="failed") for outcome in _BY_ERROR.values() if outcome.name == "unknown"),
)


def outcome_of_success(*, writes: bool, replayed: bool) -> Outcome:
    """Return the outcome of an operation that has a result.

    Args:
        writes: True if its tool writes.
        replayed: True if its result is that of an earlier attempt.
    """
    if not writes:
        return READ
    return REPLAYED if replayed else APPLIED


def outcome_of_error(error: BaseException, *, writes: bool) -> Outcome:
    """Return the outcome of an operation that raised an error.

    A batch has the reason of the step that was refused. The outcome of a read is never unknown: it has failed.

    Args:
        error: The error that it raised.
        writes: True if its tool writes.
    """
    if isinstance(error, errors.BatchRefusedError):
        error = error.error
    outcome = next(_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR)
    return outcome if writes or outcome.name != "unknown" else outcome._replace(name="failed")
