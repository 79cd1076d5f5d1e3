"""Every error has its own outcome, or that of its base class."""

from __future__ import annotations

import pytest

from kvworker import errors
from kvworker.messaging.outcomes import (
    APPLIED,
    OUTCOMES,
    READ,
    REPLAYED,
    UNEXPECTED,
    Outcome,
    outcome_of_error,
    outcome_of_success,
)

QUOTA = errors.NamespaceQuotaExceededError("n", 10, 10, 5)


def test_a_success_is_a_read_or_a_write_or_its_replay() -> None:
    assert outcome_of_success(writes=False, replayed=False) is READ
    assert outcome_of_success(writes=True, replayed=False) is APPLIED
    assert outcome_of_success(writes=True, replayed=True) is REPLAYED
    assert all((not outcome.reason) == (outcome in {APPLIED, READ, REPLAYED}) for outcome in OUTCOMES)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (QUOTA, Outcome("refused", "namespace_quota")),
        (errors.BatchRefusedError(1, type(QUOTA).__name__, QUOTA.args), Outcome("refused", "namespace_quota")),
        (errors.InvalidTTLError("no"), Outcome("invalid", "ttl")),
        (errors.StoreUnavailableError("gone", "id"), Outcome("unknown", "store_unavailable")),
        (errors.OperationTimeoutError("id"), Outcome("unknown", "timeout")),
        (errors.OperationExpiredError("id"), Outcome("expired", "deadline")),
        (errors.KVStoreError("of a plugin"), UNEXPECTED),
        (ValueError("a fault"), UNEXPECTED),
    ],
    ids=repr,
)
def test_an_error_has_the_outcome_of_its_class(error: BaseException, outcome: Outcome) -> None:
    assert outcome_of_error(error, writes=True) == outcome
    assert outcome in OUTCOMES


def test_the_outcome_of_a_read_is_never_unknown() -> None:
    assert outcome_of_error(errors.OperationTimeoutError("id"), writes=False) == Outcome("failed", "timeout")


def test_no_public_error_ends_as_unexpected() -> None:
    """A new class needs an outcome, or a base class that has one."""
    classes = [found for name in errors.__all__ if isinstance(found := getattr(errors, name), type)]
    aggregates = {errors.KVStoreError, errors.QueueError, errors.PipelineError}
    assert {cls for cls in classes if not has_outcome(cls)} == aggregates


def has_outcome(cls: type[BaseException]) -> bool:
    return cls is errors.BatchRefusedError or outcome_of_error(cls.__new__(cls), writes=True) != UNEXPECTED
