"""Cases: operations that are taken together are what each is by itself."""

# ruff: noqa: S101, D102 - these are tests, and their names say what they test.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import KVStoreError, NamespaceQuotaExceededError
from kvworker.model import Action, GetResult, JSONValue, Operation, Step, StepResult
from kvworker.testing.support import AdapterFactory, Cases, global_ledger, ledger, text_of


def one(
    action: Action, key: str, operation_id: str | None = None, *, namespace: str = "n", **fields: object
) -> Operation:
    """Make an operation on a key."""
    return Operation(namespace, Step(action, key, **fields), operation_id)  # type: ignore[arg-type]


def take_alone(adapter: KeyValueStoreAdapter, operation: Operation) -> StepResult:
    """Take an operation by itself."""
    step, written = operation.step, {"operation_id": operation.operation_id}
    arguments: dict[str, dict[str, Any]] = {
        "get": {},
        "set": {"value": step.value, "ttl_seconds": step.ttl_seconds, **written},
        "delete": written,
        "increment": {"delta": step.delta, "initial_value": step.initial_value, **written},
    }
    return cast(StepResult, getattr(adapter, step.action)(operation.namespace, step.key, **arguments[step.action]))


def take(adapter: KeyValueStoreAdapter, operations: Sequence[Operation]) -> list[StepResult | KVStoreError]:
    """Take operations together, and what was not taken by itself."""
    results: list[StepResult | KVStoreError] = []
    for operation, result in zip(operations, adapter.apply_many(operations), strict=True):
        try:
            results.append(result or take_alone(adapter, operation))
        except KVStoreError as error:
            results.append(error)
    return results


def values(results: Sequence[StepResult | KVStoreError]) -> list[JSONValue]:
    """Give what each result says of its entry's value."""
    return [getattr(result, "value", getattr(result, "deleted", None)) for result in results]


class ApplyManyCases(Cases):
    """Operations together."""

    def test_each_has_its_own_result(self, adapter: KeyValueStoreAdapter) -> None:
        adapter.set("n", "gone", 1)
        adapter.set("n", "there", {"a": 1})
        operations = [
            one("set", "new", value="x"),
            one("increment", "counter", delta=2, initial_value=5),
            one("delete", "gone"),
            one("get", "there"),
            one("get", "missing"),
            one("set", "new", namespace="other", value=[1], ttl_seconds=60),
        ]
        results = take(adapter, operations)
        assert values(results) == ["x", 7, True, {"a": 1}, None, [1]]
        assert isinstance(results[4], GetResult)
        assert not results[4].found
        assert adapter.get("other", "new").value == [1]
        assert ledger(adapter, "n") == (len('"x"') + len("7") + len('{"a":1}'), 3)

    def test_writes_of_one_key_each_have_a_version(self, adapter: KeyValueStoreAdapter) -> None:
        results = take(adapter, [one("increment", "counter") for _ in range(4)])
        assert sorted(map(str, values(results))) == ["1", "2", "3", "4"]
        assert len({getattr(result, "version", None) for result in results}) == 4
        assert adapter.get("n", "counter").value == 4

    def test_writes_again_and_again(self, adapter: KeyValueStoreAdapter) -> None:
        for size in (5, 5, 5, 5, 9, 5):
            results = take(adapter, [one("set", f"key {number}", value=text_of(size)) for number in range(6)])
            assert values(results) == [text_of(size)] * 6
            assert ledger(adapter, "n") == (6 * size, 6)

    def test_what_was_applied_is_not_applied_again(self, adapter: KeyValueStoreAdapter) -> None:
        first = adapter.increment("n", "a", operation_id="a")
        for _ in range(2):
            results = take(adapter, [one("increment", "a", "a"), one("increment", "b", "b")])
            assert values(results) == [first.value, 1]
        assert adapter.get("n", "b").value == 1
        assert adapter.increment("n", "b", operation_id="b").replayed

    def test_the_same_operation_twice_at_once(self, adapter: KeyValueStoreAdapter) -> None:
        results = take(adapter, [one("increment", "a", "id"), one("increment", "a", "id")])
        assert values(results) == [1, 1]
        assert adapter.get("n", "a").value == 1

    def test_one_that_is_refused_refuses_no_other(self, make_adapter: AdapterFactory) -> None:
        adapter = make_adapter(namespace_quota_bytes=100)
        adapter.set("n", "text", "x")
        operations = [
            one("set", "small", value=text_of(20)),
            one("set", "large", value=text_of(90)),
            one("increment", "text"),
            one("get", "text"),
        ]
        small, large, wrong, read = take(adapter, operations)
        assert values([small, read]) == [text_of(20), "x"]
        assert isinstance(large, NamespaceQuotaExceededError)
        assert isinstance(wrong, KVStoreError)
        assert ledger(adapter, "n") == (23, 2)

    def test_the_global_quota_holds(self, make_adapter: AdapterFactory) -> None:
        adapter = make_adapter(global_quota_bytes=100)
        operations = [one("set", "key", namespace=f"n {number}", value=text_of(30)) for number in range(5)]
        results = take(adapter, operations)
        assert sum(isinstance(result, KVStoreError) for result in results) == 2
        assert global_ledger(adapter).used_bytes == 90

    def test_a_wrong_name_is_refused(self, adapter: KeyValueStoreAdapter) -> None:
        with pytest.raises(KVStoreError):
            take(adapter, [one("set", "key", namespace="", value=1)])
