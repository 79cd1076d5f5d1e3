"""What a caller is told when a worker says that an operation failed."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker import (
    KVStoreError,
    NamespaceQuotaExceededError,
    OperationFailedError,
    OperationTimeoutError,
    UnsupportedMessageError,
)
from kvworker.dispatch import PendingReply
from kvworker.outgoing import Message
from kvworker.tools import TOOLS


def told(tool: str, name: str, args: list[Any], *, copies: int) -> KVStoreError:
    reply = PendingReply(TOOLS[tool], "operation", Message("task", "id", {}, "", give_up_at=0.0, copies=copies))
    with pytest.raises(KVStoreError) as caught:
        reply.outcome({"status": "FAILURE", "result": {"exc_type": name, "exc_message": args}})
    return caught.value


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("NamespaceQuotaExceededError", ["n", 10, 9, 2], NamespaceQuotaExceededError),
        ("NotRegistered", ["kvworker.kv_set"], UnsupportedMessageError),
        ("ZeroDivisionError", ["division by zero"], OperationFailedError),
    ],
    ids=str,
)
def test_one_copy_of_a_write_failed_and_another_may_not_have(
    name: str, args: list[Any], expected: type[KVStoreError]
) -> None:
    assert type(told("kv_set", name, args, copies=1)) is expected
    unknown = told("kv_set", name, args, copies=2)
    assert isinstance(unknown, OperationTimeoutError)
    assert unknown.operation_id == "operation"
    assert name in str(unknown)
    assert type(told("kv_get", name, args, copies=2)) is expected
