"""The messages of a batch of LangGraph's operations, and the operations that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, SearchOp

from kvworker import InvalidRequestError, NamespaceQuotaExceededError, ValueSerializationError
from kvworker.integrations.langgraph import KvworkerStore
from tests.support.counting import CountingStore

_MIB = 1024 * 1024


@pytest.fixture
def kv_store() -> Iterator[CountingStore]:
    with CountingStore() as store:
        yield store


@pytest.fixture
def store(kv_store: CountingStore) -> KvworkerStore:
    return KvworkerStore(kv_store)


class TestMessages:
    def test_the_reads_of_a_namespace_are_one_message_and_its_writes_another(
        self, kv_store: CountingStore, store: KvworkerStore
    ) -> None:
        store.put(("a",), "k3", {"n": 1}, ttl=1)
        ops: list[Op] = [PutOp(("a",), "k1", {}), GetOp(("a",), "k2"), PutOp(("a",), "k2", None), GetOp(("a",), "k3")]
        assert kv_store.sent_by(store, *ops) == ["kv_batch", "kv_batch"]

    def test_a_single_key_needs_no_batch(self, kv_store: CountingStore, store: KvworkerStore) -> None:
        assert kv_store.sent_by(store, PutOp(("a",), "k", {}, ttl=1)) == ["kv_get", "kv_set"]
        assert kv_store.sent_by(store, GetOp(("a",), "k")) == ["kv_get", "kv_touch"]
        assert kv_store.sent_by(store, GetOp(("a",), "k", refresh_ttl=False)) == ["kv_get"]
        assert kv_store.sent_by(store, PutOp(("a",), "k", None)) == ["kv_delete"]
        assert kv_store.sent_by(store) == []

    def test_a_search_stops_reading_once_it_has_enough(self, kv_store: CountingStore, store: KvworkerStore) -> None:
        store.batch([PutOp((f"n{number:02}",), "k", {"n": number}) for number in range(20)])
        eight = ["kv_list_namespaces", *["kv_list_keys"] * 8]
        assert kv_store.sent_by(store, SearchOp((), limit=8)) == eight
        assert kv_store.sent_by(store, SearchOp((), limit=5, offset=4)) == [*eight, *["kv_list_keys"] * 8]
        assert kv_store.sent_by(store, SearchOp(("n01",))) == ["kv_list_namespaces", "kv_list_keys"]
        assert kv_store.sent_by(store, SearchOp((), limit=0)) == ["kv_list_namespaces"]

    def test_more_operations_than_one_message_holds(self, kv_store: CountingStore, store: KvworkerStore) -> None:
        keys = [f"k{number:04}" for number in range(1001)]
        puts: list[Op] = [PutOp(("a",), key, {"n": 1}) for key in keys]
        assert kv_store.sent_by(store, *puts) == ["kv_batch", "kv_get", "kv_batch", "kv_set"]
        assert [item.key for item in store.search(("a",), limit=2000)] == keys
        assert [item.key for item in store.search(("a",), filter={"n": 1}, limit=3, offset=998)] == keys[998:]
        assert all(store.batch([GetOp(("a",), key) for key in keys]))

    def test_values_too_large_for_one_reply_are_read_in_several(
        self, kv_store: CountingStore, store: KvworkerStore
    ) -> None:
        kv_store.set_quota("langgraph:a", 16 * _MIB)
        texts = {f"k{number}": str(number) * _MIB for number in range(6)}
        for key, text in texts.items():
            store.put(("a",), key, {"text": text})
        read = store.batch([GetOp(("a",), key) for key in texts])
        assert [item.value["text"] for item in read if item and not isinstance(item, list)] == list(texts.values())
        assert [item.value["text"] for item in store.search(("a",))] == list(texts.values())

    def test_more_namespaces_than_a_page_holds(self, store: KvworkerStore) -> None:
        namespaces = [("n", f"{number:04}") for number in range(1001)]
        store.batch([PutOp(namespace, "k", {}) for namespace in namespaces])
        assert store.list_namespaces(limit=2000) == namespaces
        assert [item.namespace for item in store.search(("n",), limit=3, offset=999)] == namespaces[999:]


class TestRefusals:
    @pytest.mark.parametrize(
        "wrong",
        [
            PutOp(("b",), "k", {"n": float("nan")}),
            PutOp(("b",), "k", {"n": (1, 2)}),
            PutOp(("b",), "k", {"n": datetime.now(UTC)}),
            PutOp(("b",), "k", cast(dict[str, Any], [["n", 1]])),
            PutOp(("b",), "k", cast(dict[str, Any], 5)),
            PutOp(("b",), "", {}),
            PutOp(("b.c",), "k", {}),
            SearchOp(("b",), limit=-1),
            ListNamespacesOp(offset=-1),
            "an operation",
        ],
    )
    def test_a_batch_with_a_wrong_operation_sends_nothing(
        self, kv_store: CountingStore, store: KvworkerStore, wrong: Any
    ) -> None:
        with pytest.raises(ValueError, match=r".+"):
            store.batch([PutOp(("a",), "k", {}), wrong])
        assert kv_store.sent == []

    def test_a_value_that_json_would_change_is_refused(self, store: KvworkerStore) -> None:
        with pytest.raises(ValueSerializationError):
            store.put(("a",), "k", {1: "one"})  # type: ignore[dict-item]

    @pytest.mark.parametrize("value", [[["x", 1]], [1], "text", 5, True])
    def test_a_value_that_is_not_a_mapping_is_refused(self, store: KvworkerStore, value: Any) -> None:
        with pytest.raises(InvalidRequestError, match="the value of item 'k' must be a mapping, not a"):
            store.put(("a",), "k", value)

    def test_a_full_namespace_fails_as_a_whole_and_others_succeed(self, store: KvworkerStore) -> None:
        ops: list[Op] = [
            PutOp(("full",), "small", {}),
            PutOp(("full",), "large", {"text": "x" * 2 * _MIB}),
            PutOp(("other",), "k", {}),
        ]
        with pytest.raises(NamespaceQuotaExceededError):
            store.batch(ops)
        assert [item.namespace for item in store.search(())] == [("other",)]

    def test_text_is_compared_as_text_and_incomparable_values_do_not_match(self, store: KvworkerStore) -> None:
        values: dict[str, Any] = {"early": "2024-01-31", "late": "2025-06-01", "none": None, "list": [1]}
        for key, value in values.items():
            store.put(("a",), key, {"date": value})
        assert [item.key for item in store.search(("a",), filter={"date": {"$gt": "2024-12-31"}})] == ["late"]
        assert store.search(("a",), filter={"date": {"$lt": 10**400}}) == []
        assert store.search(("a",), filter={"missing": {"$gte": 0}}) == []
