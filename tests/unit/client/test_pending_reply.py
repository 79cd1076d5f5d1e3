"""The error that a caller gets when a worker reports a failure."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker import (
    KVStoreError,
    NamespaceQuotaExceededError,
    OperationExpiredError,
    OperationFailedError,
    OperationTimeoutError,
    UnsupportedMessageError,
)
from kvworker.client.pending_reply import PendingReply
from kvworker.client.transport.message import Message
from kvworker.tools import TOOLS


def error_of(tool: str, name: str, args: list[Any], *, copies: int) -> KVStoreError:
    reply = PendingReply(TOOLS[tool], "operation", Message("task", "id", {}, "", give_up_at=0.0, copies=copies))
    with pytest.raises(KVStoreError) as caught:
        reply.outcome({"status": "FAILURE", "result": {"exc_type": name, "exc_message": args}})
    return caught.value


@pytest.mark.parametrize(
    ("name", "args", "expected", "with_another_copy"),
    [
        ("NamespaceQuotaExceededError", ["n", 10, 9, 2], NamespaceQuotaExceededError, NamespaceQuotaExceededError),
        ("OperationExpiredError", ["operation"], OperationExpiredError, OperationTimeoutError),
        ("NotRegistered", ["kvworker.kv_set"], UnsupportedMessageError, OperationTimeoutError),
        ("ZeroDivisionError", ["division by zero"], OperationFailedError, OperationFailedError),
    ],
    ids=str,
)
def test_a_failure_before_the_database_says_nothing_about_other_copies(
    name: str, args: list[Any], expected: type[KVStoreError], with_another_copy: type[KVStoreError]
) -> None:
    assert type(error_of("kv_set", name, args, copies=1)) is expected
    assert type(error_of("kv_set", name, args, copies=2)) is with_another_copy
