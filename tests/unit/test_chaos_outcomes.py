"""The fault suite classifies each error by what it says about its operation."""

from __future__ import annotations

import pytest

from kvworker.errors import (
    IdempotencyConflictError,
    KVStoreError,
    NamespaceQuotaExceededError,
    OperationExpiredError,
    OperationFailedError,
    OperationNotSentError,
    OperationTimeoutError,
    QueueUnavailableError,
    RedeliveryLimitError,
    SchemaError,
    StoreUnavailableError,
    VersionConflictError,
)
from tests.chaos.history import Outcome, classify

APPLIED, REPLAYED, REFUSED = Outcome.APPLIED, Outcome.REPLAYED, Outcome.REFUSED
EXPIRED, UNSENT, UNKNOWN, READ = Outcome.EXPIRED, Outcome.UNSENT, Outcome.UNKNOWN, Outcome.READ


CLASSES: dict[Outcome, tuple[KVStoreError, ...]] = {
    REFUSED: (
        NamespaceQuotaExceededError("n", 1, 1, 1),
        VersionConflictError("n", "k", None, 1),
        IdempotencyConflictError("n", "id"),
    ),
    EXPIRED: (OperationExpiredError("id"),),
    UNSENT: (QueueUnavailableError("id"), OperationNotSentError("stopped")),
    UNKNOWN: (
        OperationTimeoutError("id"),
        StoreUnavailableError("away"),
        OperationFailedError("id"),
        RedeliveryLimitError("id"),
        SchemaError("any other error"),
    ),
}


@pytest.mark.parametrize("outcome", CLASSES)
def test_errors_are_classified(outcome: Outcome) -> None:
    assert [classify(error) for error in CLASSES[outcome]] == [outcome] * len(CLASSES[outcome])
