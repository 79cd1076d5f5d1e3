"""The py-key-value store: the library's contract, and kvworker's additions to it.

The library's own suite (``tests/stores/base.py`` of its repository) is in neither its wheel nor its sdist, so it
cannot be run from here. These tests cover the same behaviours in their own words, and
``test_key_value_reference.py`` compares the store with the library's ``MemoryStore``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from key_value.aio.errors import DeserializationError, InvalidKeyError, InvalidTTLError, SerializationError
from key_value.aio.protocols.key_value import (
    AsyncCullProtocol,
    AsyncDestroyCollectionProtocol,
    AsyncDestroyStoreProtocol,
    AsyncEnumerateCollectionsProtocol,
    AsyncEnumerateKeysProtocol,
    AsyncKeyValue,
)

import kvworker
from kvworker.integrations.key_value import KvworkerKeyValueStore
from tests.support.recording import RecordingStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def inner() -> Iterator[RecordingStore]:
    with RecordingStore() as store:
        yield store


@pytest.fixture
def store(inner: RecordingStore) -> KvworkerKeyValueStore:
    return KvworkerKeyValueStore(inner)


class TestContract:
    async def test_it_implements_the_librarys_protocols(self, store: KvworkerKeyValueStore) -> None:
        assert isinstance(store, AsyncKeyValue)
        assert isinstance(store, AsyncEnumerateKeysProtocol)
        assert isinstance(store, AsyncEnumerateCollectionsProtocol)
        assert isinstance(store, AsyncDestroyCollectionProtocol)
        assert not isinstance(store, AsyncCullProtocol | AsyncDestroyStoreProtocol)

    async def test_a_new_store_is_empty(self, store: KvworkerKeyValueStore) -> None:
        assert await store.get("k") is None
        assert await store.ttl("k") == (None, None)
        assert await store.get_many(["k", "l"]) == [None, None]
        assert await store.ttl_many(["k"]) == [(None, None)]
        assert await store.delete("k") is False
        assert await store.delete_many(["k", "l"]) == 0
        assert await store.keys() == []
        assert await store.collections() == []
        assert await store.destroy_collection("c") is False

    async def test_one_entry(self, store: KvworkerKeyValueStore) -> None:
        await store.put("k", {"a": 1}, collection="c")
        await store.put("k", {"a": [2, None]}, collection="c")
        assert await store.get("k", collection="c") == {"a": [2, None]}
        assert await store.ttl("k", collection="c") == ({"a": [2, None]}, None)
        assert await store.get("k") is None
        assert await store.delete("k", collection="c") is True
        assert await store.delete("k", collection="c") is False
        assert await store.get("k", collection="c") is None

    async def test_many_entries(self, store: KvworkerKeyValueStore) -> None:
        await store.put_many(("a", "b"), [{"n": 1}, {"n": 2}], ttl=100)
        assert await store.get_many(["b", "x", "a", "b"]) == [{"n": 2}, None, {"n": 1}, {"n": 2}]
        (value, ttl), missing = await store.ttl_many(["a", "x"])
        assert (value, missing) == ({"n": 1}, (None, None))
        assert ttl == pytest.approx(100, abs=5)
        assert await store.delete_many(["a", "x", "a"]) == 1
        assert await store.get_many(deque(["a", "b"])) == [None, {"n": 2}]

    async def test_calls_without_keys_send_nothing(self, store: KvworkerKeyValueStore, inner: RecordingStore) -> None:
        assert await store.get_many([]) == []
        assert await store.ttl_many([]) == []
        assert await store.delete_many([]) == 0
        await store.put_many([], [])
        assert inner.messages == []

    async def test_any_mapping_is_a_value(self, store: KvworkerKeyValueStore) -> None:
        await store.put("k", MappingProxyType({"a": 1}))
        assert await store.get("k") == {"a": 1}

    async def test_put_if_absent(self, store: KvworkerKeyValueStore) -> None:
        stored = await asyncio.gather(*(store.put_if_absent("k", {"n": n}, ttl=100) for n in range(20)))
        assert sorted(stored) == [False] * 19 + [True]
        value, ttl = await store.ttl("k")
        assert value == {"n": stored.index(True)}
        assert ttl == pytest.approx(100, abs=5)
        with pytest.raises(SerializationError):
            await store.put_if_absent("other", {"a": object()})

    @pytest.mark.parametrize("ttl", [0, -1, True, False, float("nan"), float("inf"), "5", Decimal("NaN")], ids=repr)
    async def test_an_invalid_ttl_is_refused_by_every_method(
        self, store: KvworkerKeyValueStore, inner: RecordingStore, ttl: Any
    ) -> None:
        for put in (
            store.put("k", {}, ttl=ttl),
            store.put_many(["k", "l"], [{}, {}], ttl=ttl),
            store.put_if_absent("k", {}, ttl=ttl),
        ):
            with pytest.raises(InvalidTTLError):
                await put
        assert not inner.get("default_collection", "k").found

    @pytest.mark.parametrize("ttl", [1e300, 10**400, Decimal(10) ** 12], ids=["float", "int", "Decimal"])
    async def test_a_very_long_ttl_is_cut(self, store: KvworkerKeyValueStore, ttl: Any) -> None:
        await store.put("put", {}, ttl=ttl)
        await store.put_many(["many"], [{}], ttl=ttl)
        await store.put_if_absent("absent", {}, ttl=ttl)
        for _, remaining in await store.ttl_many(["put", "many", "absent"]):
            assert remaining == pytest.approx(1e10, rel=1e-3)

    async def test_tasks_do_not_disturb_each_other(self, store: KvworkerKeyValueStore) -> None:
        async def work(worker: int) -> None:
            for turn in range(5):
                key = f"{worker}/{turn}"
                await store.put(key, {"turn": turn})
                assert await store.get(key) == {"turn": turn}
                assert await store.delete(key)
                assert await store.get(key) is None

        await asyncio.gather(*map(work, range(4)))


def test_event_loops_share_a_store(store: KvworkerKeyValueStore) -> None:
    def put(number: int) -> None:
        asyncio.run(store.put(f"k{number}", {"n": number}))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(put, range(8)))
    assert asyncio.run(store.keys()) == [f"k{number}" for number in range(8)]


class TestNames:
    async def test_a_collection_is_a_namespace(self, inner: RecordingStore) -> None:
        store = KvworkerKeyValueStore(inner, namespace_prefix="team/", default_collection="main")
        await store.put("k", {"a": 1})
        await store.put("k", {"a": 2}, collection="")
        await store.put("k", {"a": 3}, collection="other")
        inner.set("team/", "k", "another program's")
        inner.set("teams", "k", "another program's")
        assert inner.get("team/main", "k").value == {"a": 2}
        assert inner.get("team/other", "k").value == {"a": 3}
        assert await store.collections() == ["main", "other"]
        assert await KvworkerKeyValueStore(inner).get("k", collection="team/main") == {"a": 2}

    async def test_destroying_a_collection_leaves_the_others(self, inner: RecordingStore) -> None:
        store = KvworkerKeyValueStore(inner, namespace_prefix="team/")
        await store.put_many(["a", "b"], [{}, {}], collection="c")
        await store.put("k", {}, collection="c2")
        inner.set("c", "k", 1)
        assert await store.destroy_collection("c") is True
        assert await store.destroy_collection("c") is False
        assert await store.collections() == ["c2"]
        assert inner.get("c", "k").found
        await store.put("k", {"again": True}, collection="c")
        assert await store.get("k", collection="c") == {"again": True}

    @pytest.mark.parametrize("key", ["", " ", "nul\0", "\ud800", "k" * 1025, "ü" * 513])
    async def test_a_key_that_does_not_fit(self, store: KvworkerKeyValueStore, key: str) -> None:
        for call in (store.get(key), store.put(key, {}), store.delete(key), store.put_many(["k", key], [{}, {}])):
            with pytest.raises(InvalidKeyError) as caught:
                await call
            assert isinstance(caught.value.__cause__, kvworker.InvalidKeyError)
        assert await store.keys() == []

    async def test_the_longest_names(self, inner: RecordingStore) -> None:
        store = KvworkerKeyValueStore(inner, namespace_prefix="team/")
        await store.put("k" * 1024, {"a": 1}, collection="c" * 250)
        assert await store.get("k" * 1024, collection="c" * 250) == {"a": 1}
        with pytest.raises(InvalidKeyError, match="namespace is 256 bytes of UTF-8; at most 255 are allowed"):
            await store.put("k", {}, collection="c" * 251)

    def test_an_invalid_prefix(self, inner: RecordingStore) -> None:
        with pytest.raises(kvworker.InvalidKeyError, match="namespace_prefix"):
            KvworkerKeyValueStore(inner, namespace_prefix="p" * 256)

    async def test_listing(self, store: KvworkerKeyValueStore, inner: RecordingStore) -> None:
        keys = [f"k{number:04}" for number in range(2100)]
        await store.put_many(keys, [{}] * len(keys), collection="c")
        inner.messages.clear()
        assert await store.keys("c") == keys
        assert [name for name, _ in inner.messages] == ["kv_list_keys"] * 3
        assert await store.keys("c", limit=1500) == keys[:1500]
        assert await store.keys("c", limit=1) == keys[:1]
        assert await store.keys("c", limit=0) == []
        await store.put("k", {}, collection="d")
        assert await store.collections(limit=1) == ["c"]
        assert await store.collections(limit=5) == ["c", "d"]

    async def test_it_keeps_no_collection_names_in_memory(self, store: KvworkerKeyValueStore) -> None:
        def remembered() -> int:
            return sum(len(kept) for kept in vars(store).values() if isinstance(kept, dict))

        before = remembered()
        for number in range(10):
            await store.put("k", {}, collection=f"session-{number}")
        assert remembered() == before


class TestValues:
    async def test_a_value_is_stored_plain(self, store: KvworkerKeyValueStore, inner: RecordingStore) -> None:
        await store.put("k", {"z": 1, "a": "ü"}, collection="c")
        assert repr(inner.get("c", "k").value) == repr({"z": 1, "a": "ü"})
        assert inner.usage("c").used_bytes == len('{"z":1,"a":"ü"}'.encode())
        inner.set("c", "k", {"written": "by another"})
        assert await store.get("k", collection="c") == {"written": "by another"}

    async def test_a_stored_value_that_is_not_an_object_is_an_error(
        self, store: KvworkerKeyValueStore, inner: RecordingStore
    ) -> None:
        inner.increment("c", "hunter2")
        for call in (store.get("hunter2", collection="c"), store.ttl_many(["hunter2", "x"], collection="c")):
            with pytest.raises(DeserializationError, match="the stored value is not a JSON object: its type is int"):
                await call

    @pytest.mark.parametrize("value", [(1, 2), {1}, b"x", float("nan"), "\ud800", {1: "one"}, timedelta(1)], ids=repr)
    async def test_a_value_that_json_would_change_is_refused(self, store: KvworkerKeyValueStore, value: object) -> None:
        for call in (store.put("k", {"v": value}), store.put_many(["j", "k"], [{}, {"v": value}])):
            with pytest.raises(SerializationError) as caught:
                await call
            assert isinstance(caught.value.__cause__, kvworker.ValueSerializationError)
        assert await store.keys() == []


async def test_a_persona_with_read_access_can_read_everything() -> None:
    reader = {"flags": ["type.system.kv_store_access"]}
    writer = {"flags": ["type.system.kv_store_access", "type.system.kv_store_write"]}
    adapters = {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}
    configuration = {"tools": {"kv_store": adapters}, "policies": {"personas": {"reader": reader, "writer": writer}}}
    with kvworker.InlineKeyValueStore(kvworker.Settings.from_mapping(configuration)) as inner:
        await KvworkerKeyValueStore(inner.as_persona("writer")).put_many(["k", "l"], [{"a": 1}, {"a": 2}])
        store = KvworkerKeyValueStore(inner.as_persona("reader"))
        assert await store.get_many(["k", "l", "m"]) == [{"a": 1}, {"a": 2}, None]
        assert (await store.ttl("k"))[0] == {"a": 1}
        assert (await store.keys(), await store.collections()) == (["k", "l"], ["default_collection"])
        for write in (store.put("k", {"a": 3}), store.delete("k"), store.destroy_collection("default_collection")):
            with pytest.raises(kvworker.PolicyDeniedError):
                await write
        assert await store.get("k") == {"a": 1}
