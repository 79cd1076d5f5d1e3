"""The py-key-value store through a real broker, worker and database."""

from __future__ import annotations

import asyncio

import pytest
from key_value.aio.errors import SerializationError

from kvworker import AsyncKeyValueStore, NamespaceQuotaExceededError, Settings
from kvworker.integrations.key_value import KvworkerKeyValueStore

pytestmark = pytest.mark.usefixtures("celery_setup")


def test_a_py_key_value_store_through_the_queue(settings: Settings) -> None:
    async def use(kv: AsyncKeyValueStore) -> None:
        store = KvworkerKeyValueStore(kv, namespace_prefix="agents/", timeout=30)
        await store.put("k", {"a": [1, None, "ü"]}, collection="c", ttl=60)
        value, ttl = await store.ttl("k", collection="c")
        assert value == {"a": [1, None, "ü"]}
        assert ttl == pytest.approx(60, abs=10)
        assert (await kv.get("agents/c", "k")).value == value
        keys = [f"{number:04}" for number in range(1001)]
        values = [{"n": number} for number in range(1001)]
        await store.put_many(keys, values)
        assert await store.get_many([*keys, "missing"]) == [*values, None]
        assert await store.keys() == keys
        assert await store.collections() == ["c", "default_collection"]
        assert await store.delete_many([*keys[1:], "missing"]) == 1000
        stored = await asyncio.gather(*(store.put_if_absent("lock", {"n": number}) for number in range(10)))
        assert stored.count(True) == 1
        with pytest.raises(SerializationError):
            await store.put("k", {"a": (1, 2)})
        with pytest.raises(NamespaceQuotaExceededError):
            await store.put_many(["x", "y"], [{"v": "x" * 600_000}] * 2)
        assert await store.destroy_collection("default_collection")
        assert await store.collections() == ["c"]

    async def main() -> None:
        async with AsyncKeyValueStore(settings) as kv:
            await use(kv)

    asyncio.run(main())
