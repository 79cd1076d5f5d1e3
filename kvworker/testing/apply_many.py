"""Cases: applying operations together gives the same results as applying each individually."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from collections.abc import Sequence

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import InvalidKeyError, KVStoreError, NamespaceQuotaExceededError
from kvworker.model import Action, GetResult, JSONValue, Operation, Step, StepResult
from kvworker.testing.support import AdapterFactory, Cases, global_ledger, ledger, text_of


def make_operation(
    action: Action, key: str, operation_id: str | None = None, *, namespace: str = "n", **fields: object
) -> Operation:
    """Make an operation on a key; ``fields`` are those of its step."""
    return Operation(namespace, Step(action, key, **fields), operation_id)  # type: ignore[arg-type]


def apply_alone(adapter: KeyValueStoreAdapter, operation: Operation) -> StepResult:
    """Apply an operation individually, as a worker does."""
    if operation.step.action == "get":
        return adapter.get(operation.namespace, operation.step.key)
    return adapter.apply_step(operation.namespace, operation.step, operation.operation_id)


def apply_all(adapter: KeyValueStoreAdapter, operations: Sequence[Operation]) -> list[StepResult | KVStoreError]:
    """Apply operations together, and then individually those that were not applied; return results and errors."""
    results: list[StepResult | KVStoreError] = []
    for operation, result in zip(operations, adapter.apply_many(operations), strict=True):
        try:
            results.append(result or apply_alone(adapter, operation))
        except KVStoreError as error:
            results.append(error)
    return results


def values_of(results: Sequence[StepResult | KVStoreError]) -> list[JSONValue]:
    """Return each result's value, or whether it deleted an entry."""
    return [getattr(result, "value", getattr(result, "deleted", None)) for result in results]


class ApplyManyCases(Cases):
    """Unrelated operations, applied together."""

    def test_each_has_its_own_result(self, adapter: KeyValueStoreAdapter) -> None:
        """Results are in the order of the operations, which may read and write in several namespaces."""
        adapter.set("n", "gone", 1)
        adapter.set("n", "there", {"a": 1})
        operations = [
            make_operation("set", "new", value="x"),
            make_operation("increment", "counter", delta=2, initial_value=5),
            make_operation("delete", "gone"),
            make_operation("get", "there"),
            make_operation("get", "missing"),
            make_operation("set", "new", namespace="other", value=[1], ttl_seconds=60),
        ]
        results = apply_all(adapter, operations)
        assert values_of(results) == ["x", 7, True, {"a": 1}, None, [1]]
        assert isinstance(results[4], GetResult)
        assert not results[4].found
        assert adapter.get("other", "new").value == [1]
        assert ledger(adapter, "n") == (len('"x"') + len("7") + len('{"a":1}'), 3)

    def test_writes_of_one_key_each_have_a_version(self, adapter: KeyValueStoreAdapter) -> None:
        """All writes of one key are applied, one after another, and each returns its own version."""
        results = apply_all(adapter, [make_operation("increment", "counter") for _ in range(4)])
        assert sorted(map(str, values_of(results))) == ["1", "2", "3", "4"]
        assert len({getattr(result, "version", None) for result in results}) == 4
        assert adapter.get("n", "counter").value == 4

    def test_repeated_writes_of_many_sizes(self, adapter: KeyValueStoreAdapter) -> None:
        """The ledger follows repeated writes of the same keys, whether the values grow, shrink or keep their size."""
        for size in (5, 5, 5, 5, 9, 5):
            results = apply_all(
                adapter, [make_operation("set", f"key {number}", value=text_of(size)) for number in range(6)]
            )
            assert values_of(results) == [text_of(size)] * 6
            assert ledger(adapter, "n") == (6 * size, 6)

    def test_an_applied_operation_is_not_applied_again(self, adapter: KeyValueStoreAdapter) -> None:
        """An operation whose id was applied before is replayed, and new operations in the same call are applied."""
        first = adapter.increment("n", "a", operation_id="a")
        for _ in range(2):
            results = apply_all(adapter, [make_operation("increment", "a", "a"), make_operation("increment", "b", "b")])
            assert values_of(results) == [first.value, 1]
        assert adapter.get("n", "b").value == 1
        assert adapter.increment("n", "b", operation_id="b").replayed

    def test_the_same_operation_twice_at_once(self, adapter: KeyValueStoreAdapter) -> None:
        """Two operations with the same id in one call are applied once and have the same result."""
        results = apply_all(adapter, [make_operation("increment", "a", "id"), make_operation("increment", "a", "id")])
        assert values_of(results) == [1, 1]
        assert adapter.get("n", "a").value == 1

    def test_a_refusal_does_not_affect_the_others(self, make_adapter: AdapterFactory) -> None:
        """An operation over the quota or of the wrong type fails alone, and the rest of the call is applied."""
        adapter = make_adapter(namespace_quota_bytes=100)
        adapter.set("n", "text", "x")
        operations = [
            make_operation("set", "small", value=text_of(20)),
            make_operation("set", "large", value=text_of(90)),
            make_operation("increment", "text"),
            make_operation("get", "text"),
        ]
        small, large, wrong, read = apply_all(adapter, operations)
        assert values_of([small, read]) == [text_of(20), "x"]
        assert isinstance(large, NamespaceQuotaExceededError)
        assert isinstance(wrong, KVStoreError)
        assert ledger(adapter, "n") == (23, 2)

    def test_the_global_quota_holds(self, make_adapter: AdapterFactory) -> None:
        """Operations of one call share the global quota: those that fit are applied, and the rest are refused."""
        adapter = make_adapter(global_quota_bytes=100)
        operations = [make_operation("set", "key", namespace=f"n {number}", value=text_of(30)) for number in range(5)]
        results = apply_all(adapter, operations)
        assert sum(isinstance(result, KVStoreError) for result in results) == 2
        assert global_ledger(adapter).used_bytes == 90

    def test_a_bad_name_is_refused(self, adapter: KeyValueStoreAdapter) -> None:
        """A malformed namespace raises ``InvalidKeyError`` and nothing is stored under it."""
        # The adapter refuses the whole call, or leaves the operation to its own method, which refuses it.
        try:
            (result,) = apply_all(adapter, [make_operation("set", "key", namespace="", value=1)])
        except InvalidKeyError:
            return
        assert isinstance(result, InvalidKeyError)
