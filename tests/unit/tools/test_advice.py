"""Errors as a language model receives them: the facts, whether anything was changed, and the next step."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from kvworker import errors
from kvworker.errors import KVStoreError
from kvworker.tools import TOOLS
from kvworker.tools.advice import describe

SAMPLES: list[KVStoreError] = [
    KVStoreError("something"),
    errors.ConfigurationError("queue.broker_url: wrong"),
    errors.InvalidRequestError("kv_get needs the argument 'key'"),
    errors.InvalidKeyError("namespace must not be blank"),
    errors.InvalidTTLError("ttl_seconds must be a number above 0"),
    errors.ValueSerializationError("the value is not JSON"),
    errors.UnsupportedMessageError("version 9"),
    errors.OperationRefusedError("refused"),
    errors.InvalidValueTypeError("n", "k"),
    errors.InvalidValueTypeError("n", "k", "a list"),
    errors.CounterOverflowError("n", "k"),
    errors.VersionConflictError("n", "k", 1, 2),
    errors.LeaseHeldError("n", "k", 2.5),
    errors.LeaseLostError("n", "k"),
    errors.RateLimitExceededError("n", "k", 2.5),
    errors.IdempotencyConflictError("n", "op-1"),
    errors.StepConflictError("n", "k"),
    errors.StepInProgressError("n", "k", "worker-1", 12.5),
    errors.EffectUnknownError("n", "k", "worker-1", 7),
    errors.StepLostError("n", "k", 7),
    errors.StepUnrecordedError("n", "k", "done", "quota"),
    errors.StepFailedError("n", "k", "shop.CardDeclined", "no funds"),
    errors.BatchRefusedError(3, "VersionConflictError", ["n", "k", None, 2]),
    errors.ReadTooLargeError(4096),
    errors.ReplayTooLargeError(4096),
    errors.RecordTooLargeError("n", "k", 4096, 4097),
    errors.QuotaExceededError("full"),
    errors.NamespaceQuotaExceededError("n", 100, 90, 20),
    errors.GlobalQuotaExceededError(100, 90, 20),
    errors.LimitExceededError("entries", "n", 100, 100),
    errors.PolicyDeniedError("reader", "kv_set", "n", "it needs a flag"),
    errors.StoreUnavailableError("the database is too busy", "op-1"),
    errors.StoreUnavailableError("the database is too busy"),
    errors.PipelineError("run-7", [["kv_set", "n", "k", "VersionConflictError", ["n", "k", None, 2]]]),
    errors.SchemaError("the schema is missing"),
    errors.QueueError("the queue failed"),
    errors.QueueUnavailableError("op-1"),
    errors.OperationNotSentError("its pipeline ended"),
    errors.UnknownOutcomeError("unknown"),
    errors.OperationTimeoutError("op-1"),
    errors.OperationExpiredError("op-1"),
    errors.RedeliveryLimitError("op-1"),
    errors.OperationFailedError("op-1", "TypeError"),
    errors.NestedCallError("a task called"),
]
UNKNOWN = {
    "KVStoreError",
    "PipelineError",
    "QueueError",
    "StoreUnavailableError",
    "UnknownOutcomeError",
    "OperationTimeoutError",
    "RedeliveryLimitError",
    "OperationFailedError",
}


def tree(cls: type[KVStoreError] = KVStoreError) -> Iterator[type[KVStoreError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from tree(child)


def test_the_samples_cover_the_whole_tree() -> None:
    public = {cls for cls in tree() if cls.__module__ == errors.__name__ and not cls.__name__.startswith("_")}
    assert {type(error) for error in SAMPLES} == public


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_says_what_was_changed_and_what_to_do(error: KVStoreError) -> None:
    told = describe(error, TOOLS["kv_set"])["error"]
    assert json.loads(json.dumps(told)) == told
    assert told.keys() == {"type", "message", "details", "changed", "next"}
    assert told["message"] == str(error)
    assert told["changed"] == ("unknown" if type(error).__name__ in UNKNOWN else "nothing")
    assert told["next"].endswith(".")
    assert "{" not in told["next"]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_a_read_changes_nothing_and_needs_no_idempotency_key(error: KVStoreError) -> None:
    told = describe(error, TOOLS["kv_get"])["error"]
    assert told["changed"] == "nothing"
    assert "idempotency_key 'op-1'" not in told["next"]


def test_a_read_without_a_result_is_not_told_to_give_an_idempotency_key() -> None:
    told = describe(errors.OperationTimeoutError("op-1", "the broker was lost"), TOOLS["kv_get"])["error"]
    assert told["message"] == "no result within the timeout"
    assert told["details"]["detail"] == "the broker was lost"
    assert told["next"].startswith("Call kv_get again with the same arguments, a little later")


@pytest.mark.parametrize(
    ("error", "details", "advice"),
    [
        (
            errors.OperationTimeoutError("op-1"),
            {"operation_id": "op-1", "detail": ""},
            "Call kv_set again with the same arguments and idempotency_key 'op-1'",
        ),
        (
            errors.VersionConflictError("n", "k", 1, 2),
            {"namespace": "n", "key": "k", "expected_version": 1, "actual_version": 2},
            "Read it again with kv_get",
        ),
        (
            errors.NamespaceQuotaExceededError("n", 100, 90, 20),
            {"namespace": "n", "quota_bytes": 100, "used_bytes": 90, "requested_bytes": 20},
            "kv_delete, or store a shorter value",
        ),
        (errors.StoreUnavailableError("busy"), {"detail": "busy", "operation_id": ""}, "Before you write again, read"),
        (errors.InvalidKeyError("key must not be blank"), {}, "Correct the arguments"),
    ],
)
def test_the_advice_fits_the_error(error: KVStoreError, details: dict[str, object], advice: str) -> None:
    told = describe(error, TOOLS["kv_set"])["error"]
    assert told["details"] == details
    assert advice in told["next"]


@pytest.mark.parametrize("refused", [errors.LOGIN_REFUSED, errors.RESULTS_REFUSED])
def test_a_refused_login_is_left_to_the_operator(refused: str) -> None:
    """A model was told to call again a little later, which cannot help."""
    error = errors.QueueUnavailableError("op-1", f"{refused}AuthenticationError: no such user")
    for tool in ("kv_set", "kv_get"):
        assert describe(error, TOOLS[tool])["error"]["next"].startswith("Do not call again")
    away = errors.QueueUnavailableError("op-1", "ConnectionError: Connection refused")
    assert describe(away, TOOLS["kv_set"])["error"]["next"].startswith("Call kv_set again")


def test_a_refused_batch_shows_the_operations_own_error() -> None:
    told = describe(errors.BatchRefusedError(3, "VersionConflictError", ["n", "k", None, 2]), TOOLS["kv_batch"])[
        "error"
    ]
    assert "operations[3]" in told["next"]
    assert told["details"]["index"] == 3
    inner = told["details"]["error"]
    assert (inner["type"], inner["details"]["actual_version"]) == ("VersionConflictError", 2)


def test_an_adapters_own_error_is_described_like_its_base() -> None:
    class CloudFullError(errors.QuotaExceededError):
        """The cloud is full."""

    told = describe(CloudFullError(), TOOLS["kv_set"])["error"]
    assert (told["type"], told["message"], told["changed"]) == ("CloudFullError", "The cloud is full.", "nothing")
