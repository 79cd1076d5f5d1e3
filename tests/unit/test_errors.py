"""Errors cross the queue as their class name and JSON arguments, and arrive as themselves."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvworker import errors
from kvworker.errors import (
    BatchRefusedError,
    ConfigurationError,
    CounterOverflowError,
    EffectUnknownError,
    GlobalQuotaExceededError,
    IdempotencyConflictError,
    InvalidKeyError,
    InvalidTTLError,
    InvalidValueTypeError,
    KVStoreError,
    LeaseHeldError,
    LeaseLostError,
    LimitExceededError,
    NamespaceQuotaExceededError,
    NestedCallError,
    OperationExpiredError,
    OperationFailedError,
    OperationNotSentError,
    OperationTimeoutError,
    PipelineError,
    PolicyDeniedError,
    QueueUnavailableError,
    QuotaExceededError,
    RateLimitExceededError,
    ReadTooLargeError,
    RecordTooLargeError,
    RedeliveryLimitError,
    ReplayTooLargeError,
    SchemaError,
    StepConflictError,
    StepFailedError,
    StepInProgressError,
    StepLostError,
    StepUnrecordedError,
    StoreUnavailableError,
    UnsupportedMessageError,
    ValueSerializationError,
    VersionConflictError,
    rebuild_error,
)

EVERY_LEAF: list[KVStoreError] = [
    ConfigurationError("queue.broker_url: wrong"),
    InvalidKeyError("namespace must not be blank"),
    InvalidTTLError("ttl_seconds must be a number above 0"),
    ValueSerializationError("the value is not JSON"),
    UnsupportedMessageError("version 9"),
    InvalidValueTypeError("session", "ключ"),
    InvalidValueTypeError("session", "k", "a list"),
    CounterOverflowError("session", "k"),
    VersionConflictError("session", "k", 12, None),
    VersionConflictError("session", "k", None, 12),
    LeaseHeldError("session", "k", 2.5),
    LeaseLostError("session", "k"),
    RateLimitExceededError("session", "k", 0.25),
    InvalidValueTypeError("session", "k", "a rate limit"),
    IdempotencyConflictError("session", "op-1"),
    StepConflictError("session", "charge"),
    StepInProgressError("session", "charge", "worker-1", 12.5),
    EffectUnknownError("session", "charge", "worker-1", 7),
    StepLostError("session", "charge", 7),
    StepUnrecordedError("session", "charge", "done", "quota"),
    StepFailedError("session", "charge", "shop.CardDeclined", "no funds"),
    InvalidValueTypeError("session", "k", "a durable step"),
    BatchRefusedError(3, "InvalidValueTypeError", ["session", "k"]),
    ReadTooLargeError(65_536),
    ReplayTooLargeError(65_536),
    RecordTooLargeError("session", "k", 65_536, 65_537),
    PolicyDeniedError("reader", "kv_set", "session", "it lacks the flag"),
    PolicyDeniedError("", "kv_usage", "", "it names no persona"),
    NamespaceQuotaExceededError("session", 1_048_576, 1_048_000, 1_000),
    GlobalQuotaExceededError(2**62, 2**62 - 1, 2),
    LimitExceededError("namespaces", None, 100, 100),
    LimitExceededError("entries", "session", 100, 100),
    LimitExceededError("records", "session", 100, 100),
    StoreUnavailableError("the database is too busy", "op-1"),
    PipelineError("run-7", [["kv_increment", "n", "k", "InvalidValueTypeError", ["n", "k"]]]),
    SchemaError("the schema is missing; run kvworker migrate"),
    QueueUnavailableError("op-1", "timeout of 5 s"),
    OperationNotSentError("the pipeline's with block was left by an error"),
    OperationTimeoutError("op-1", "timeout of 5 s"),
    OperationTimeoutError("op-1", "timeout of 5 s", True),
    OperationExpiredError("op-1"),
    RedeliveryLimitError("op-1", "5 redeliveries"),
    OperationFailedError("op-1", "TypeError"),
    NestedCallError("a task called the facade"),
]


def tree(cls: type[KVStoreError] = KVStoreError) -> Iterator[type[KVStoreError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from tree(child)


def public_tree() -> list[type[KVStoreError]]:
    return [cls for cls in tree() if not cls.__name__.startswith("_") and cls.__module__ == errors.__name__]


def assert_same(rebuilt: BaseException | None, error: KVStoreError) -> None:
    assert type(rebuilt) is type(error)
    assert rebuilt is not None
    assert rebuilt.args == error.args
    assert vars(rebuilt) == vars(error)
    assert str(rebuilt) == str(error)


@pytest.mark.parametrize("error", EVERY_LEAF, ids=lambda error: type(error).__name__)
def test_an_error_rebuilds_from_its_name_and_json_arguments(error: KVStoreError) -> None:
    assert_same(rebuild_error(type(error).__name__, json.loads(json.dumps(error.args))), error)


@pytest.mark.parametrize("error", EVERY_LEAF, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_pickling_of_process_pools(error: KVStoreError) -> None:
    assert_same(pickle.loads(pickle.dumps(error)), error)  # noqa: S301 - our own bytes


def test_the_samples_cover_every_class_that_is_raised() -> None:
    raised = {cls for cls in public_tree() if not cls.__subclasses__() or cls is IdempotencyConflictError}
    assert {type(error) for error in EVERY_LEAF} == raised


def test_the_docstring_draws_the_actual_tree() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        name = next((word for word in line.split() if word.endswith("Error")), None)
        if name is None or not (line.strip().startswith(("├", "└", "│")) or name == "KVStoreError"):
            continue
        depth = (line.index(name) - 4) // 4
        path[depth:] = [name]
        drawn[name] = path[depth - 1] if depth else ""
    actual = {cls.__name__: public_parent(cls) for cls in public_tree()}
    assert drawn == actual


def public_parent(cls: type[KVStoreError]) -> str:
    parents = [base for base in cls.__mro__[1:] if issubclass(base, KVStoreError) and not base.__name__.startswith("_")]
    return parents[0].__name__ if parents else ""


@pytest.mark.parametrize("cls", public_tree(), ids=lambda cls: cls.__name__)
def test_every_error_has_its_own_docstring(cls: type[KVStoreError]) -> None:
    assert cls.__doc__
    assert cls.__doc__ not in {base.__doc__ for base in cls.__mro__[1:]}


def test_the_docstring_is_the_default_message() -> None:
    assert str(KVStoreError()) == "The key-value store failed."
    assert str(SchemaError()) == SchemaError.__doc__


def test_only_an_error_with_an_operation_id_mentions_the_idempotency_key() -> None:
    assert "idempotency key" in str(StoreUnavailableError("the database is away", "op-1"))
    assert str(StoreUnavailableError("the database is away")) == "the database is away"


def test_invalid_requests_are_value_errors() -> None:
    for cls in (InvalidKeyError, InvalidTTLError, ValueSerializationError, UnsupportedMessageError):
        assert issubclass(cls, ValueError)


def test_quota_errors_carry_quota_used_and_requested_bytes() -> None:
    for error in (NamespaceQuotaExceededError("n", 10, 8, 3), GlobalQuotaExceededError(10, 8, 3)):
        assert isinstance(error, QuotaExceededError)
        assert (error.quota_bytes, error.used_bytes, error.requested_bytes) == (10, 8, 3)
        assert all(figure in str(error) for figure in ("10", "8", "3"))


def test_a_pipeline_error_holds_the_errors_of_its_operations() -> None:
    conflict = VersionConflictError("n", "k", 3, None)
    failures = [["kv_set", "n", "k", "VersionConflictError", list(conflict.args)], ["kv_get", "m", "l", "Other", []]]
    error = PipelineError("run-7", failures)
    assert_same(error.errors[0], conflict)
    assert str(error.errors[1]) == "Other"
    says = "2 operations of the pipeline 'run-7' failed: kv_set of 'k' in namespace 'n': the entry is"
    assert str(error).startswith(says)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OperationTimeoutError("op-1"), "unknown"),
        (OperationExpiredError("op-1"), "not applied"),
        (QueueUnavailableError("op-1"), "not applied"),
        (RedeliveryLimitError("op-1"), "unknown"),
        (OperationFailedError("op-1"), "unknown"),
    ],
)
def test_an_operations_error_names_it_and_says_what_is_known(error: KVStoreError, says: str) -> None:
    assert "'op-1'" in str(error)
    assert says in str(error)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("NoSuchError", ["x"]),
        ("ValueError", ["x"]),
        ("Sequence", []),
        ("rebuild_error", ["x", []]),
        ("NamespaceQuotaExceededError", ["too few"]),
        ("CounterOverflowError", ["too", "many", "of them"]),
        ("", []),
    ],
)
def test_only_our_own_errors_are_rebuilt(name: str, args: list[object]) -> None:
    assert rebuild_error(name, args) is None


@given(namespace=st.text(), numbers=st.tuples(st.integers(), st.integers(), st.integers()))
def test_any_quota_error_survives_json(namespace: str, numbers: tuple[int, int, int]) -> None:
    error = NamespaceQuotaExceededError(namespace, *numbers)
    assert_same(rebuild_error("NamespaceQuotaExceededError", json.loads(json.dumps(error.args))), error)
