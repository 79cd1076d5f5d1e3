"""The LangGraph store beyond LangGraph's contract, and its documented deviations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.store.base import GetOp, InvalidNamespaceError, PutOp, SearchOp, TTLConfig

from kvworker import AsyncKeyValueStore, InvalidKeyError, InvalidRequestError, InvalidTTLError, Settings
from kvworker.integrations.langgraph import KvworkerStore
from kvworker.integrations.langgraph.items import Names
from tests.support.counting import CountingStore
from tests.support.processes import wait_until

_IN_MEMORY = {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}}}


@pytest.fixture
def kv_store() -> Iterator[CountingStore]:
    with CountingStore() as store:
        yield store


@pytest.fixture
def store(kv_store: CountingStore) -> KvworkerStore:
    return KvworkerStore(kv_store)


def _ttl_seconds(kv_store: CountingStore, namespace: str, key: str) -> float | None:
    return kv_store.get(namespace, key).ttl_seconds


class TestTimes:
    def test_an_update_keeps_the_creation_time_and_moves_the_update_time(self, store: KvworkerStore) -> None:
        before = datetime.now(UTC)
        store.put(("a",), "k", {"n": 1})
        first = store.get(("a",), "k")
        store.put(("a",), "k", {"n": 2})
        second = store.get(("a",), "k")
        assert first is not None
        assert second is not None
        assert before <= first.created_at == first.updated_at <= datetime.now(UTC)
        assert second.created_at == first.created_at
        assert second.updated_at > first.updated_at
        assert store.search(("a",))[0].dict() == {**second.dict(), "score": None}

    def test_a_deleted_item_gets_a_new_creation_time(self, store: KvworkerStore) -> None:
        store.put(("a",), "k", {"n": 1})
        first = store.get(("a",), "k")
        store.delete(("a",), "k")
        store.put(("a",), "k", {"n": 1})
        second = store.get(("a",), "k")
        assert first is not None
        assert second is not None
        assert second.created_at > first.created_at


class TestNames:
    def test_an_item_is_an_entry_of_a_namespace_with_the_prefix(self, kv_store: CountingStore) -> None:
        KvworkerStore(kv_store, prefix="memory").put(("users", "ü"), "k", {"n": 1})
        value = kv_store.get("memory:users.ü", "k").value
        assert isinstance(value, dict)
        assert value["value"] == {"n": 1}
        assert set(value) == {"value", "created_at", "updated_at"}

    def test_stores_of_other_prefixes_and_other_entries_are_not_seen(self, kv_store: CountingStore) -> None:
        one, other = KvworkerStore(kv_store, prefix="one"), KvworkerStore(kv_store, prefix="one.a")
        kv_store.set("one", "k", 1)
        one.put(("a", "b"), "k", {"n": 1})
        other.put(("b",), "k", {"n": 2})
        assert [item.value for item in one.search(())] == [{"n": 1}]
        assert [item.value for item in other.search(())] == [{"n": 2}]
        assert one.list_namespaces() == [("a", "b")]

    @given(st.lists(st.tuples(st.sampled_from(["p", "p.q", "q"]), st.lists(st.text("p:.q", min_size=1, max_size=3)))))
    def test_no_two_namespaces_share_a_name(self, pairs: list[tuple[str, list[str]]]) -> None:
        named = {(prefix, tuple(one.replace(".", "-") for one in labels)) for prefix, labels in pairs}
        names = {Names(prefix).encode(labels) for prefix, labels in named}
        assert len(names) == len(named)
        assert all(Names(prefix).decode(Names(prefix).encode(labels)) == labels for prefix, labels in named)

    @pytest.mark.parametrize("prefix", ["a:b", "", " ", "x" * 256])
    def test_a_prefix_that_is_invalid_or_holds_a_colon_is_refused(self, kv_store: CountingStore, prefix: str) -> None:
        with pytest.raises(InvalidKeyError):
            KvworkerStore(kv_store, prefix=prefix)

    def test_the_longest_name_can_be_used_and_a_longer_one_is_refused(self, store: KvworkerStore) -> None:
        longest = ("a", "x" * (255 - len("langgraph:a.")))
        store.put(longest, "k", {"n": 1})
        assert [item.namespace for item in store.search(longest)] == [longest]
        assert store.list_namespaces(prefix=longest) == [longest]
        longer = (*longest[:-1], longest[-1] + "x")
        for op in (GetOp(longer, "k"), PutOp(longer, "k", {}), PutOp(longer, "k", None)):
            with pytest.raises(InvalidNamespaceError, match="at most 255"):
                store.batch([op])

    @pytest.mark.parametrize("label", ["x" * 244, "x" * 245, "x" * 300], ids=len)
    def test_nothing_is_found_below_a_name_that_is_too_long(self, store: KvworkerStore, label: str) -> None:
        store.put(("x",), "k", {"n": 1})
        assert store.search((label,)) == []
        assert store.list_namespaces(prefix=(label,)) == []
        assert store.list_namespaces(suffix=(label,)) == []

    @pytest.mark.parametrize("key", ["", " ", "x" * 1025, "\x00"])
    def test_an_invalid_key_is_refused(self, store: KvworkerStore, key: str) -> None:
        with pytest.raises(InvalidKeyError):
            store.put(("a",), key, {})

    def test_an_entry_of_another_program_is_an_error_that_names_it(
        self, kv_store: CountingStore, store: KvworkerStore
    ) -> None:
        kv_store.set("langgraph:a", "foreign", {"value": 1})
        for read in (lambda: store.get(("a",), "foreign"), lambda: store.search(())):
            with pytest.raises(InvalidRequestError, match=r"'foreign' of namespace \('a',\) was not written"):
                read()


class TestTTL:
    def test_a_default_in_minutes_and_a_puts_own_ttl(self, kv_store: CountingStore) -> None:
        store = KvworkerStore(kv_store, ttl={"default_ttl": 2})
        store.put(("a",), "default", {})
        store.put(("a",), "longer", {}, ttl=10)
        store.put(("a",), "lasting", {}, ttl=None)
        assert _ttl_seconds(kv_store, "langgraph:a", "default") == pytest.approx(120, abs=5)
        assert _ttl_seconds(kv_store, "langgraph:a", "longer") == pytest.approx(600, abs=5)
        assert _ttl_seconds(kv_store, "langgraph:a", "lasting") is None
        store.put(("a",), "longer", {}, ttl=None)
        assert _ttl_seconds(kv_store, "langgraph:a", "longer") is None

    def test_an_expired_item_is_not_read(self, kv_store: CountingStore) -> None:
        store = KvworkerStore(kv_store)
        store.put(("a",), "short", {"n": 1}, ttl=0.05 / 60)
        store.put(("b",), "lasting", {"n": 1})
        wait_until(lambda: store.get(("a",), "short", refresh_ttl=False) is None, timeout_seconds=5)
        assert [item.key for item in store.search(())] == ["lasting"]
        assert store.list_namespaces() == [("b",)]

    @pytest.mark.parametrize(
        ("config", "refresh_ttl", "renewed"),
        [
            (None, None, True),
            (None, False, False),
            ({"refresh_on_read": True}, None, True),
            ({"refresh_on_read": False}, None, False),
            ({"refresh_on_read": False}, True, True),
        ],
    )
    @pytest.mark.parametrize("reading", ["get", "search"])
    def test_a_read_renews_it(
        self, kv_store: CountingStore, config: TTLConfig | None, refresh_ttl: bool | None, renewed: bool, reading: str
    ) -> None:
        store = KvworkerStore(kv_store, ttl=config)
        store.put(("a",), "k", {"n": 1}, ttl=10)
        kv_store.touch("langgraph:a", "k", 60)
        if reading == "get":
            assert store.get(("a",), "k", refresh_ttl=refresh_ttl) is not None
        else:
            assert store.search(("a",), refresh_ttl=refresh_ttl) != []
        expected_seconds = 600 if renewed else 60
        assert _ttl_seconds(kv_store, "langgraph:a", "k") == pytest.approx(expected_seconds, abs=5)

    def test_a_search_renews_only_returned_items(self, kv_store: CountingStore, store: KvworkerStore) -> None:
        for key in ("k0", "k1", "k2"):
            store.put(("a",), key, {}, ttl=10)
            kv_store.touch("langgraph:a", key, 60)
        store.search(("a",), limit=1, offset=1)
        seconds = [_ttl_seconds(kv_store, "langgraph:a", key) for key in ("k0", "k1", "k2")]
        assert seconds == [pytest.approx(60, abs=5), pytest.approx(600, abs=5), pytest.approx(60, abs=5)]

    def test_a_read_in_the_batch_of_a_put_does_not_undo_its_ttl(
        self, kv_store: CountingStore, store: KvworkerStore
    ) -> None:
        store.put(("a",), "k", {"n": 1}, ttl=10)
        store.batch([PutOp(("a",), "k", {"n": 2}, ttl=1), GetOp(("a",), "k"), SearchOp(("a",))])
        assert _ttl_seconds(kv_store, "langgraph:a", "k") == pytest.approx(60, abs=5)

    @pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf"), True, "5"])
    def test_an_invalid_ttl_is_refused(self, store: KvworkerStore, minutes: Any) -> None:
        with pytest.raises(InvalidTTLError, match="ttl of item 'k' must be a finite number of minutes above 0"):
            store.put(("a",), "k", {}, ttl=minutes)

    @pytest.mark.parametrize("minutes", [1e308, 10**400], ids=["float", "int"])
    def test_a_very_long_ttl_is_cut(self, kv_store: CountingStore, store: KvworkerStore, minutes: float) -> None:
        store.put(("a",), "k", {}, ttl=minutes)
        assert store.get(("a",), "k") is not None
        assert _ttl_seconds(kv_store, "langgraph:a", "k") == pytest.approx(1e10, rel=1e-3)


class TestSearches:
    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            ({"flag": 1}, {"one", "float"}),
            ({"flag": 0}, {"zero"}),
            ({"flag": True}, {"true"}),
            ({"flag": False}, {"false"}),
            ({"flag": 1.0}, {"one", "float"}),
            ({"flag": {"$eq": 1}}, {"one", "float"}),
            ({"flag": {"$ne": True}}, {"one", "float", "zero", "false", "list", "object"}),
            ({"flag": {"$gte": 0}}, {"one", "float", "zero"}),
            ({"flag": {"$gte": False}}, set()),
            ({"flag": [1]}, set()),
            ({"flag": (True,)}, {"list"}),
            ({"flag": {"$eq": [1]}}, set()),
            ({"flag": {"$eq": [True]}}, {"list"}),
            ({"flag": {"x": 1}}, set()),
            ({"flag": {"$eq": {"x": 1}}}, set()),
            ({"flag": {"$eq": {"x": True}}}, {"object"}),
        ],
        # Sets have another order in each process, but parallel processes must agree on the names.
        ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
    )
    def test_a_filter_tells_numbers_from_true_and_false(
        self, store: KvworkerStore, wanted: dict[str, Any], found: set[str]
    ) -> None:
        values = {
            "one": 1,
            "float": 1.0,
            "zero": 0,
            "true": True,
            "false": False,
            "list": [True],
            "object": {"x": True},
        }
        for key, value in values.items():
            store.put(("f",), key, {"flag": value})
        assert {item.key for item in store.search(("f",), filter=wanted)} == found

    @pytest.mark.parametrize(
        "wanted", [{1: 2}, {"a": {1: 2}}, {"a": [{1: 2}]}, {"a": {"b": {None: 1}}}, {"a": {1: 2, "b": 1}}], ids=str
    )
    def test_a_name_that_json_does_not_have_is_refused(
        self, kv_store: CountingStore, store: KvworkerStore, wanted: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidRequestError, match="a filter's names must be strings, as in JSON"):
            store.search(("f",), filter=wanted)
        assert kv_store.sent == []

    def test_an_unknown_operator_is_refused_even_if_there_is_nothing_to_search(self, store: KvworkerStore) -> None:
        for wanted in (
            {"n": {"$in": [1]}},
            {"n": {"$gt": 1, "other": 2}},
            {"n": [{"$in": [1]}]},
            {"n": {"$gt": 1, 1: 2}},
        ):
            with pytest.raises(ValueError, match="unsupported operator"):
                store.search(("empty",), filter=wanted)

    def test_a_search_by_meaning_is_not_implemented(self, kv_store: CountingStore, store: KvworkerStore) -> None:
        with pytest.raises(NotImplementedError, match="has no index"):
            store.search(("a",), query="what does the user like?")
        with pytest.raises(NotImplementedError, match="has no index"):
            asyncio.run(store.asearch(("a",), query="what does the user like?"))
        with pytest.raises(NotImplementedError, match="has no index"):
            store.batch([PutOp(("a",), "k", {"n": 1}), SearchOp(("a",), query="anything")])
        assert kv_store.sent == []
        assert store.search(("a",), query="") == []


class TestEventLoop:
    def test_a_synchronous_call_over_an_asynchronous_store_does_not_block_the_loop(self) -> None:
        store = KvworkerStore(AsyncKeyValueStore(Settings.from_mapping(_IN_MEMORY)))

        async def call() -> None:
            store.get(("a",), "k")

        with pytest.raises(asyncio.InvalidStateError, match="aget"):
            asyncio.run(call())

    def test_a_synchronous_store_may_be_called_in_a_loop(self, store: KvworkerStore) -> None:
        async def call() -> None:
            store.put(("a",), "k", {"n": 1})
            assert await store.aget(("a",), "k") == store.get(("a",), "k")

        asyncio.run(call())
