"""A user's program with kvworker. Only type checkers read it; nothing runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, assert_type

from fastmcp import FastMCP
from key_value.aio.protocols.key_value import AsyncKeyValue
from langchain_core.tools import BaseTool
from langgraph.store.base import BaseStore

from kvworker import (
    AsyncKeyValueStore,
    BatchResult,
    GetResult,
    IncrementResult,
    InlineKeyValueStore,
    KeyValueStore,
    KeyValueStoreAdapter,
    KVStoreError,
    NamespaceQuotaExceededError,
    OperationTimeoutError,
    SetResult,
    Settings,
    VersionConflictError,
    available_kv_store_adapters,
    register_kv_store_adapter,
)
from kvworker.errors import QuotaExceededError
from kvworker.integrations.key_value import KvworkerKeyValueStore
from kvworker.integrations.langchain import langchain_tools
from kvworker.integrations.langgraph import KvworkerStore
from kvworker.integrations.mcp.scope import Scope
from kvworker.integrations.mcp.server import Caller, make_server
from kvworker.model import JSONValue


def read_and_write(store: KeyValueStore) -> JSONValue:
    # Variables, not literals: a checker infers their types, which must be JSON values as they are.
    counts = {"seen": 1}
    names = ["a", "b"]
    nested = {"names": names}
    assert_type(counts, dict[str, int])
    assert_type(store.set("session", "counts", counts, ttl_seconds=60), SetResult)
    store.set("session", "names", names)
    store.set("session", "nested", nested)
    found = store.get("session", "counts")
    assert_type(found, GetResult)
    if found.found:
        store.set("session", "counts", None, expected_version=found.version)
    assert_type(store.increment("metrics", "calls", delta=2, idempotency_key="run-7/step-3"), IncrementResult)
    assert_type(store.increment("metrics", "calls").value, int)
    assert_type(store.delete("session", "counts").deleted, bool)
    assert_type(store.append("session", "events", names, max_items=10).length, int)
    store.merge("session", "state", counts)
    return found.value


def send_many(store: KeyValueStore) -> list[bool]:
    with store.pipeline() as pipeline:
        results = [pipeline.set("jobs", f"job-{number}", {"state": "new"}) for number in range(3)]
    batch = store.batch("jobs", [{"tool": "kv_get", "key": "job-1"}])
    assert_type(batch, BatchResult)
    pending = store.submit("kv_set", {"namespace": "jobs", "key": "k", "value": 1})
    assert_type(pending.operation_id, str)
    assert_type(store.call("kv_get", {"namespace": "jobs", "key": "k"}), dict[str, Any])
    return [result.result().replayed for result in results]


async def read_and_write_async(store: AsyncKeyValueStore) -> None:
    counts = {"seen": 1}
    assert_type(await store.set("session", "counts", counts), SetResult)
    assert_type(await store.get("session", "counts"), GetResult)
    assert_type((await store.increment("metrics", "calls")).value, int)
    async with store.pipeline() as pipeline:
        pipeline.delete("session", "counts")


def handle_errors(store: KeyValueStore) -> str | None:
    try:
        store.set("session", "document", "x" * 2_000_000)
    except NamespaceQuotaExceededError as error:
        assert_type(error.quota_bytes, int)
        return None
    except OperationTimeoutError as error:
        operation_id: str = error.operation_id
        return operation_id
    except (QuotaExceededError, VersionConflictError) as error:
        return str(error)
    except KVStoreError:
        raise
    return None


def make_adapter(config: Mapping[str, Any]) -> KeyValueStoreAdapter:
    raise NotImplementedError(config)


def register(store: InlineKeyValueStore) -> Sequence[str]:
    register_kv_store_adapter("mine", make_adapter)
    counts = {"seen": 1}
    store.set("session", "counts", counts)
    return available_kv_store_adapters()


def integrate(store: KeyValueStore, async_store: AsyncKeyValueStore) -> object:
    tools: list[BaseTool] = langchain_tools(store)
    langgraph: BaseStore = KvworkerStore(store)
    key_value: AsyncKeyValue = KvworkerKeyValueStore(async_store)
    server: FastMCP[Any] = FastMCP("server", session_state_store=key_value)
    return tools, langgraph, server, make_server(lambda _context: Caller(async_store, Scope(), ("kv_get",)))


def main() -> None:
    with KeyValueStore(Settings.load("kvworker.yaml")) as store:
        read_and_write(store)
        send_many(store.as_persona("reader"))
        handle_errors(store)
    asyncio.run(read_and_write_async(AsyncKeyValueStore.from_config()))
