"""Another copy of a refused message is refused as well, but a new attempt may succeed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.recorded_refusals import REFUSALS, attempt
from kvworker.errors import BatchRefusedError, CounterOverflowError, NamespaceQuotaExceededError, OperationTimeoutError
from kvworker.model import INT64_MAX, Step

QUOTA_BYTES = 100


@pytest.fixture(params=["postgres", "sqlite"])
def adapter(request: pytest.FixtureRequest) -> Iterator[SqlAdapter]:
    url = request.getfixturevalue(f"{request.param}_url")
    config = {"url": url, "namespace_quota_bytes": QUOTA_BYTES, "migrate_on_start": True}
    with create_kv_store_adapter(request.param, config) as adapter:
        assert isinstance(adapter, SqlAdapter)
        yield adapter


def attempt_write(name: str, write: Callable[[], Any]) -> Any:
    """Return the result of a write in an attempt, or the class of its refusal."""
    with attempt(name):
        try:
            return write()
        except REFUSALS as refusal:
            return type(refusal)


def fill(adapter: KeyValueStoreAdapter) -> Callable[[], Any]:
    """Fill the namespace so that the tested write does not fit."""
    adapter.set("n", "room", "x" * 90)
    return lambda: adapter.set("n", "key", "y" * 50, operation_id="operation")


def test_the_same_attempt_is_refused_again_and_another_one_is_not(adapter: SqlAdapter) -> None:
    write = fill(adapter)
    assert attempt_write("first", write) is NamespaceQuotaExceededError
    adapter.delete("n", "room")
    assert attempt_write("first", write) is NamespaceQuotaExceededError
    assert not adapter.was_applied("n", "operation")
    assert not attempt_write("second", write).replayed
    assert attempt_write("first", write).replayed
    assert adapter.was_applied("n", "operation")


def test_a_repeated_refusal_is_the_same_error(adapter: SqlAdapter) -> None:
    write = fill(adapter)
    told = []
    for _ in range(2):
        with attempt("first"), pytest.raises(NamespaceQuotaExceededError) as caught:
            write()
        told.append((caught.value.args, str(caught.value)))
        adapter.delete("n", "room")
    assert told[0] == told[1]


def test_a_refused_retry_does_not_remove_the_first_refusal(adapter: SqlAdapter) -> None:
    write = fill(adapter)
    for name in ("first", "second", "first", "third"):
        assert attempt_write(name, write) is NamespaceQuotaExceededError
    adapter.delete("n", "room")
    for name in ("first", "second", "third"):
        assert attempt_write(name, write) is NamespaceQuotaExceededError
    assert not attempt_write("fourth", write).replayed


def test_without_an_attempt_no_refusal_is_recorded_or_removed(adapter: SqlAdapter) -> None:
    write = fill(adapter)
    for name in ("", "first", ""):
        assert attempt_write(name, write) is NamespaceQuotaExceededError
    adapter.delete("n", "room")
    assert attempt_write("first", write) is NamespaceQuotaExceededError
    assert not attempt_write("", write).replayed


def test_a_resumed_worker_applies_nothing_that_was_refused_meanwhile(adapter: SqlAdapter) -> None:
    def late() -> None:
        raise OperationTimeoutError("operation")

    write = fill(adapter)
    assert attempt_write("retry", write) is NamespaceQuotaExceededError
    adapter.delete("n", "room")
    with attempt("frozen", late), pytest.raises(OperationTimeoutError):
        write()
    assert attempt_write("retry", write) is NamespaceQuotaExceededError
    assert not adapter.get("n", "key").found


@pytest.mark.parametrize("kind", ["quota", "version", "absent", "type", "overflow", "batch"])
def test_every_kind_of_refusal_persists(adapter: SqlAdapter, kind: str) -> None:
    adapter.set("n", "key", "text" if kind == "type" else INT64_MAX)
    adapter.set("n", "room", "x" * 60)
    writes: dict[str, Callable[[], Any]] = {
        "quota": lambda: adapter.set("n", "new", "y" * 50, operation_id="o"),
        "version": lambda: adapter.set("n", "key", 1, expected_version=1, operation_id="o"),
        "absent": lambda: adapter.set("n", "key", 1, if_absent=True, operation_id="o"),
        "type": lambda: adapter.increment("n", "key", operation_id="o"),
        "overflow": lambda: adapter.increment("n", "key", operation_id="o"),
        "batch": lambda: adapter.batch("n", [Step("increment", "key")], operation_id="o"),
    }
    refused = attempt_write("first", writes[kind])
    assert issubclass(refused, REFUSALS)
    adapter.clear("n")
    assert attempt_write("first", writes[kind]) is refused
    assert adapter.list_keys("n").entries == ()
    if kind != "version":
        assert not attempt_write("second", writes[kind]).replayed


def test_a_copy_that_was_applied_at_the_same_moment_wins(adapter: SqlAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    def beaten(_write: object) -> Any:
        monkeypatch.undo()
        adapter.increment("n", "counter", operation_id="o")
        raise CounterOverflowError("n", "counter")

    monkeypatch.setattr(adapter._writer, "_apply_with_purge", beaten)
    result = attempt_write("first", lambda: adapter.increment("n", "counter", operation_id="o"))
    assert (result.value, result.replayed) == (1, True)


def test_the_operation_id_of_a_refused_batch_may_be_used_for_another_batch(adapter: SqlAdapter) -> None:
    adapter.set("n", "text", "text")
    steps = [Step("set", "key", value=1), Step("increment", "text")]
    assert attempt_write("first", lambda: adapter.batch("n", steps, operation_id="o")) is BatchRefusedError
    assert not attempt_write("second", lambda: adapter.batch("n", steps[:1], operation_id="o")).replayed
    assert attempt_write("third", lambda: adapter.batch("n", steps[:1], operation_id="o")).replayed
