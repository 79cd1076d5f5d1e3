"""Describes an error to a language model: the facts, whether anything was changed, and the next step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvworker import errors
from kvworker.errors import KVStoreError
from kvworker.tools import Tool

_NOTHING: Final = "nothing"
_UNKNOWN: Final = "unknown"

_AGAIN_WITH_ID: Final = (
    "Call {tool} again with the same arguments and idempotency_key {operation_id!r}. It is then applied exactly once."
)
_AGAIN_LATER: Final = "Call {tool} again with the same arguments, a little later. If it keeps failing, tell the user."
_OPERATOR: Final = "Do not call again: only the operator of the key-value store can fix this. Tell the user."
#: The beginnings of an error's detail if no repetition helps until an operator changes something.
_PERMANENT: Final = (errors.LOGIN_REFUSED, errors.RESULTS_REFUSED)

#: For each class, and for subclasses without an entry: whether a write changed anything, and the next step.
_ADVICE: Final[Mapping[type[KVStoreError], tuple[str, str]]] = {
    KVStoreError: (_UNKNOWN, "Before you write again, read the entries that you wanted to change."),
    errors.ConfigurationError: (_NOTHING, _OPERATOR),
    errors.InvalidRequestError: (_NOTHING, "Correct the arguments as the message says and call {tool} again."),
    errors.UnsupportedMessageError: (_NOTHING, _OPERATOR),
    errors.OperationRefusedError: (_NOTHING, "Do not repeat the same call. Read the message."),
    errors.InvalidValueTypeError: (_NOTHING, "Use another key, or store {needed} under this key with kv_set first."),
    errors.CounterOverflowError: (_NOTHING, "Use a smaller delta, or reset the counter with kv_set."),
    errors.VersionConflictError: (
        _NOTHING,
        "Someone else wrote the entry. Read it again with kv_get. If you still want to write, pass the version that"
        " kv_get returned as expected_version.",
    ),
    errors.LeaseHeldError: (_NOTHING, "Wait {retry_after_seconds} seconds, and call {tool} again."),
    errors.RateLimitExceededError: (_NOTHING, "Wait {retry_after_seconds} seconds, and call {tool} again."),
    errors.LeaseLostError: (
        _NOTHING,
        "You no longer hold the permit. Stop the work that needs it. To begin again, take a new one with"
        " kv_acquire_permit.",
    ),
    errors.IdempotencyConflictError: (
        _NOTHING,
        "For a new operation, use a new idempotency_key. To repeat the old one, pass exactly the same arguments.",
    ),
    errors.StepConflictError: (
        _NOTHING,
        "The step was begun with other arguments. For another effect, use another key. For this one, pass exactly the"
        " same arguments.",
    ),
    errors.StepInProgressError: (_NOTHING, "Someone else holds the step. Ask again later with kv_step_status."),
    errors.EffectUnknownError: (
        _NOTHING,
        "Do not perform the effect. Find out whether it happened, and tell the user.",
    ),
    errors.StepLostError: (
        _NOTHING,
        "Someone else took over the step. Do not perform the effect. See kv_step_status, and tell the user what you"
        " did.",
    ),
    errors.BatchRefusedError: (
        _NOTHING,
        "None of the operations was applied. Correct or remove operations[{index}], whose error is in details.error,"
        " and send the whole batch again.",
    ),
    errors.ReadTooLargeError: (_NOTHING, "Split the batch into smaller ones that each read fewer values."),
    errors.ReplayTooLargeError: (
        _NOTHING,
        "The batch was applied by an earlier call. Do not send it again. Read the entries with kv_get.",
    ),
    errors.RecordTooLargeError: (
        _NOTHING,
        "Read the value with kv_get, then remove it with kv_delete and the version that kv_get returned as"
        " expected_version.",
    ),
    errors.NamespaceQuotaExceededError: (
        _NOTHING,
        "Free space in the namespace with kv_delete, or store a shorter value. kv_list_keys shows the sizes.",
    ),
    errors.GlobalQuotaExceededError: (
        _NOTHING,
        "The whole store is full. Delete entries that you no longer need, or store a shorter value. Tell the user.",
    ),
    errors.LimitExceededError: (
        _NOTHING,
        "Delete entries that you no longer need. If {counted} are operation records or namespaces, tell the user.",
    ),
    errors.StepUnrecordedError: (_NOTHING, "The effect has ended. Do not perform it again. Tell the user."),
    errors.StepFailedError: (_NOTHING, "The effect failed for good. Do not perform it again. Tell the user."),
    errors.PolicyDeniedError: (
        _NOTHING,
        "Do not call it again: you are not allowed to. If you need it, tell the user.",
    ),
    errors.UnknownOutcomeError: (_UNKNOWN, _AGAIN_WITH_ID),
    errors.SchemaError: (_NOTHING, _OPERATOR),
    errors.QueueUnavailableError: (_NOTHING, _AGAIN_LATER),
    errors.OperationNotSentError: (_NOTHING, _AGAIN_LATER),
    errors.OperationExpiredError: (_NOTHING, _AGAIN_LATER),
    errors.NestedCallError: (_NOTHING, _OPERATOR),
}


def describe(error: KVStoreError, tool: Tool) -> dict[str, Any]:
    """Describe the error of a call as JSON-able data.

    Returns:
        An object ``error`` with the error's ``type``, ``message`` and ``details``; ``changed``, which is "nothing" or
        "unknown"; and ``next``, the next step as an instruction.
    """
    changed, advice = next(_ADVICE[cls] for cls in type(error).__mro__ if cls in _ADVICE)
    if isinstance(error, errors.QueueUnavailableError) and error.detail.startswith(_PERMANENT):
        advice = _OPERATOR
    facts = _facts(error)
    if not tool.writes:
        # A read changes nothing, even if its outcome is unknown, and it has no operation id.
        changed, advice = _NOTHING, _AGAIN_LATER if changed == _UNKNOWN else advice
        if isinstance(error, errors.OperationTimeoutError) and not error.detail.startswith(errors.RESULTS_REFUSED):
            facts["message"] = "no result within the timeout"
    elif advice is _AGAIN_WITH_ID and not getattr(error, "operation_id", ""):
        advice = _ADVICE[KVStoreError][1]
    return {
        "error": {
            **facts,
            "changed": changed,
            "next": advice.format_map({"tool": tool.name, **vars(error)}),
        }
    }


def _facts(error: KVStoreError) -> dict[str, Any]:
    details = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    if isinstance(error, errors.BatchRefusedError):
        details["error"] = _facts(error.error)
    return {"type": type(error).__name__, "message": str(error), "details": details}
