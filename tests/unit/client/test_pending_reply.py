"""What a caller is told when a worker says that an operation failed."""

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


def told(tool: str, name: str, args: list[Any], *, copies: int) -> KVStoreError:
    reply = PendingReply(TOOLS[tool], "operation", Message("task", "id", {}, "", give_up_at=0.0, copies=copies))
    with pytest.raises(KVStoreError) as caught:
        reply.outcome({"status": "FAILURE", "result": {"exc_type": name, "exc_message": args}})
    return caught.value


@pytest.mark.parametrize(
    ("name", "args", "expected", "of_another"),
    [
        ("NamespaceQuotaExceededError", ["n", 10, 9, 2], NamespaceQuotaExceededError, NamespaceQuotaExceededError),
        ("OperationExpiredError", ["operation"], OperationExpiredError, OperationTimeoutError),
        ("NotRegistered", ["kvworker.kv_set"], UnsupportedMessageError, OperationTimeoutError),
        ("ZeroDivisionError", ["division by zero"], OperationFailedError, OperationFailedError),
    ],
    ids=str,
)
def test_copies_meet_in_the_database_and_not_before(
    name: str, args: list[Any], expected: type[KVStoreError], of_another: type[KVStoreError]
) -> None:
    assert type(told("kv_set", name, args, copies=1)) is expected
    assert type(told("kv_set", name, args, copies=2)) is of_another


def test_each_copy_of_a_message_is_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("kvworker.client.transport.message.time.monotonic", lambda: now)
    message = Message("task", "id", {}, "", give_up_at=2000.0)
    now += 60
    assert not message.is_doubtful()
    for seconds in (2, 4, 6):
        assert message.begin_write()
        now += seconds
        assert not message.is_doubtful()
        now += 0.1
        assert message.is_doubtful()
    message.abandon()
