"""The py-key-value store: expiry by the database's clock, and the messages that its calls send."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from key_value.aio._utils.time_to_live import prepare_entry_timestamps
from key_value.aio.errors import InvalidTTLError
from key_value.aio.stores import base

import kvworker
from kvworker import NamespaceQuotaExceededError
from kvworker.integrations.key_value import KvworkerKeyValueStore
from tests.support.recording import RecordingStore, with_quota

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


async def until_gone(store: KvworkerKeyValueStore, key: str) -> None:
    give_up_at = time.monotonic() + 10
    while await store.get(key) is not None:
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.01)


class TestTTL:
    async def test_the_database_decides_the_remaining_ttl(
        self, store: KvworkerKeyValueStore, inner: RecordingStore
    ) -> None:
        await store.put("k", {"a": 1}, ttl=60.5)
        value, ttl = await store.ttl("k")
        theirs = inner.get("default_collection", "k").ttl_seconds
        assert value == {"a": 1}
        assert theirs is not None
        assert ttl == pytest.approx(theirs, abs=1)
        assert 0 < theirs <= 60.5
        assert inner.messages[0][1]["ttl_seconds"] == 60.5
        await store.put("k", {"a": 1})
        assert await store.ttl("k") == ({"a": 1}, None)

    async def test_expiry(self, store: KvworkerKeyValueStore) -> None:
        await store.put("k", {"a": 1}, ttl=0.05)
        await until_gone(store, "k")
        assert await store.ttl("k") == (None, None)
        assert await store.get_many(["k", "x"]) == [None, None]
        assert await store.keys() == []
        assert await store.delete("k") is False
        assert await store.put_if_absent("k", {"a": 2}) is True

    @pytest.mark.parametrize("wrong_by", [timedelta(days=-1), timedelta(days=1)], ids=["slow", "fast"])
    async def test_a_callers_wrong_clock_changes_nothing(
        self, store: KvworkerKeyValueStore, monkeypatch: pytest.MonkeyPatch, wrong_by: timedelta
    ) -> None:
        def wrong(ttl: float | None) -> tuple[Any, Any, Any]:
            created_at, ttl_seconds, expires_at = prepare_entry_timestamps(ttl)
            return created_at + wrong_by, ttl_seconds, expires_at and expires_at + wrong_by

        monkeypatch.setattr(base, "prepare_entry_timestamps", wrong)
        await store.put("a", {}, ttl=60)
        await store.put_many(["b"], [{}], ttl=60)
        for _, ttl in await store.ttl_many(["a", "b"]):
            assert ttl == pytest.approx(60, abs=5)

    @pytest.mark.parametrize("ttl", [0, -1, -0.5, True, 1e-9], ids=repr)
    async def test_an_invalid_ttl(self, store: KvworkerKeyValueStore, ttl: Any) -> None:
        for call in (store.put("k", {}, ttl=ttl), store.put_many(["k", "j"], [{}, {}], ttl=ttl)):
            with pytest.raises(InvalidTTLError):
                await call
        assert await store.keys() == []


class TestMessages:
    async def test_one_message_per_thousand_keys(self, store: KvworkerKeyValueStore, inner: RecordingStore) -> None:
        keys = [f"k{number}" for number in range(2001)]
        values = [{"n": number} for number in range(2001)]
        await store.put_many(keys, values)
        assert await store.get_many(keys) == values
        assert await store.delete_many(keys) == 2001
        batch = ["kv_batch"] * 2
        # The last of the three reads has one key, which needs no batch.
        assert [name for name, _ in inner.messages] == [*batch, "kv_batch", *batch, "kv_get", *batch, "kv_batch"]

    async def test_reads_send_no_writes(self, store: KvworkerKeyValueStore, inner: RecordingStore) -> None:
        await store.get("k")
        await store.ttl_many(["k", "j"])
        await store.keys()
        await store.collections()
        tools = {name for name, _ in inner.messages} - {"kv_batch"}
        steps = {step["tool"] for name, sent in inner.messages if name == "kv_batch" for step in sent["operations"]}
        assert (tools, steps) == ({"kv_get", "kv_list_keys", "kv_list_namespaces"}, {"kv_get"})

    async def test_reads_that_are_too_large_for_a_message_are_split(self) -> None:
        with with_quota(16 * 2**20) as inner:
            store = KvworkerKeyValueStore(inner)
            keys = ["a", "b", "c", "d", "e"]
            await store.put_many(keys, [{key: "x" * 1_500_000} for key in keys])
            values = await store.get_many([*keys, "missing"])
            assert [None if value is None else list(value) for value in values] == [[key] for key in keys] + [None]

    async def test_a_quota_error_is_kvworkers_own_and_nothing_is_stored(self) -> None:
        with with_quota(50) as inner:
            store = KvworkerKeyValueStore(inner)
            for call in (store.put_many(["a", "b"], [{"v": "x" * 30}] * 2), store.put("a", {"v": "x" * 60})):
                with pytest.raises(NamespaceQuotaExceededError) as caught:
                    await call
                assert (caught.value.namespace, caught.value.quota_bytes) == ("default_collection", 50)
            assert await store.keys() == []

    async def test_the_timeout_goes_with_every_message(self, inner: RecordingStore) -> None:
        store = KvworkerKeyValueStore(inner, timeout=-1)
        for call in (store.get("k"), store.put_many(["a", "b"], [{}, {}]), store.keys(), store.destroy_collection("c")):
            with pytest.raises(kvworker.InvalidRequestError, match="timeout must be"):
                await call
