"""LangGraph's memory and LangChain's tools through a real queue."""

from __future__ import annotations

import asyncio

from langgraph.store.base import GetOp, ListNamespacesOp, PutOp, SearchOp

from kvworker import AsyncKeyValueStore, KeyValueStore, Settings
from kvworker.integrations.langchain import langchain_tools
from kvworker.integrations.langgraph import KvworkerStore
from tests.ecosystem.test_langgraph_graph import compile_graph, turn
from tests.support.processes import WorkerNode


def test_a_graph_remembers_and_tools_answer_through_the_queue(
    settings: Settings, store: KeyValueStore, worker_node: WorkerNode
) -> None:
    memory = KvworkerStore(store)
    graph = compile_graph(memory)
    assert graph.invoke(turn("ada", "hello"))["remembered"] == []
    assert graph.invoke(turn("ada", "more"))["remembered"] == ["hello"]
    results = memory.batch(
        [
            PutOp(("users", "bob"), "turn-0", {"said": "hi"}, ttl=5),
            GetOp(("users", "ada"), "turn-0"),
            SearchOp(("users",), filter={"said": {"$ne": "hello"}}),
            ListNamespacesOp(),
        ]
    )
    read, found = results[1], results[2]
    assert read is not None
    assert not isinstance(read, list)
    assert read.value == {"said": "hello"}
    assert isinstance(found, list)
    assert len(found) == 1
    assert results[3] == [("users", "ada")]
    asyncio.run(_asynchronously(settings))


async def _asynchronously(settings: Settings) -> None:
    async with AsyncKeyValueStore(settings) as store:
        memory = KvworkerStore(store)
        graph = compile_graph(memory, is_async=True)
        assert (await graph.ainvoke(turn("ada", "bye")))["remembered"] == ["hello", "more"]
        (getter,) = langchain_tools(store, names=["kv_get"])
        got = await getter.ainvoke({"namespace": "langgraph:users.bob", "key": "turn-0"})
        assert got["value"]["value"] == {"said": "hi"}
        assert 0 < got["ttl_seconds"] <= 300
        # No event loop runs in the thread, so the synchronous methods work there too.
        found = await asyncio.to_thread(memory.search, ("users", "ada"))
        assert [item.key for item in found] == ["turn-0", "turn-1", "turn-2"]
        assert (await asyncio.to_thread(getter.invoke, {"namespace": "n", "key": "k"}))["found"] is False
