"""kvworker's store as the memory of a LangGraph graph, and its tools in one, without a model."""

from __future__ import annotations

import asyncio
import json
from typing import TypedDict

import pytest
from langchain_core.messages import AIMessage, ToolCall
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode
from langgraph.store.base import BaseStore

from kvworker import InlineKeyValueStore
from kvworker.integrations.langchain import langchain_tools
from kvworker.integrations.langgraph import KvworkerStore


class Turn(TypedDict):
    user: str
    said: str
    remembered: list[str]


def _remember(state: Turn, *, store: BaseStore) -> dict[str, list[str]]:
    namespace = ("users", state["user"])
    before = store.search(namespace)
    store.put(namespace, f"turn-{len(before)}", {"said": state["said"]})
    return {"remembered": [item.value["said"] for item in before]}


async def _remember_async(state: Turn, *, store: BaseStore) -> dict[str, list[str]]:
    namespace = ("users", state["user"])
    before = await store.asearch(namespace)
    await store.aput(namespace, f"turn-{len(before)}", {"said": state["said"]})
    return {"remembered": [item.value["said"] for item in before]}


def compile_graph(store: BaseStore, *, is_async: bool = False) -> CompiledStateGraph[Turn, None, Turn, Turn]:
    """Build a graph of one node that remembers across runs what each user said."""
    builder = StateGraph(Turn)
    if is_async:
        builder.add_node("remember", _remember_async)
    else:
        builder.add_node("remember", _remember)
    builder.add_edge(START, "remember")
    builder.add_edge("remember", END)
    return builder.compile(store=store)


def turn(user: str, said: str) -> Turn:
    """Return the input of a run of the graph."""
    return {"user": user, "said": said, "remembered": []}


@pytest.fixture(autouse=True)
def _no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


def test_a_node_finds_what_earlier_runs_put() -> None:
    with InlineKeyValueStore() as kv_store:
        graph = compile_graph(KvworkerStore(kv_store))
        assert graph.invoke(turn("ada", "hello"))["remembered"] == []
        assert graph.invoke(turn("ada", "more"))["remembered"] == ["hello"]
        assert graph.invoke(turn("bob", "hi"))["remembered"] == []
        other_process = compile_graph(KvworkerStore(kv_store))
        assert other_process.invoke(turn("ada", "bye"))["remembered"] == ["hello", "more"]


def test_a_coroutine_node_finds_them_too() -> None:
    with InlineKeyValueStore() as kv_store:
        graph = compile_graph(KvworkerStore(kv_store), is_async=True)
        assert asyncio.run(graph.ainvoke(turn("ada", "hello")))["remembered"] == []
        assert asyncio.run(graph.ainvoke(turn("ada", "more")))["remembered"] == ["hello"]


def test_a_graph_that_runs_its_tools_again_applies_each_call_once() -> None:
    arguments = {"namespace": "n", "key": "calls"}
    said = AIMessage("", tool_calls=[ToolCall(name="kv_increment", args=arguments, id=f"call-{n}") for n in range(2)])
    with InlineKeyValueStore() as store:
        builder = StateGraph(MessagesState)
        builder.add_node("tools", ToolNode(langchain_tools(store)))
        builder.add_edge(START, "tools")
        graph = builder.compile()
        for _ in range(2):
            results = graph.invoke({"messages": [said]}, {"configurable": {"thread_id": "7"}})["messages"][1:]
            assert {json.loads(result.content)["value"] for result in results} == {1, 2}
        assert store.get("n", "calls").value == 2
