"""``once_tool``: a tool of LangChain's whose effect happens once for each tool call, also in a graph."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolCallId, ToolException, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import InjectedState, ToolNode
from langgraph.types import Command, interrupt

from kvworker import (
    AsyncKeyValueStore,
    EffectUnknownError,
    InlineKeyValueStore,
    InvalidRequestError,
    Settings,
    StepConflictError,
    StepUnrecordedError,
)
from kvworker.integrations.langchain import once_tool

_IN_MEMORY = {"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": "sqlite://"}}}}}


@pytest.fixture(autouse=True)
def _no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@pytest.fixture
def store() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as store:
        yield store


class Shop:
    """Counts its charges, and offers them as a tool."""

    def __init__(self) -> None:
        self.charged: list[tuple[str, int]] = []

    def tool(self) -> BaseTool:
        @tool
        def charge(order: str, cents: int) -> dict[str, Any]:
            """Charge an order."""
            if cents < 0:
                raise ToolException("an amount must not be negative")
            self.charged.append((order, cents))
            return {"receipt": len(self.charged)}

        charge.handle_tool_error = True
        return charge


def call(order: str = "o-17", cents: int = 990, call_id: str = "call-1", **extra: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": call_id, "name": "charge", "args": {"order": order, "cents": cents}, **extra}


def in_thread(name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name}}


def test_a_repeated_call_gets_the_recorded_message(store: InlineKeyValueStore) -> None:
    shop = Shop()
    charge = once_tool(store, shop.tool())
    assert convert_to_openai_tool(charge) == convert_to_openai_tool(shop.tool())
    first, again = charge.invoke(call(), in_thread("a")), charge.invoke(call(), in_thread("a"))
    assert isinstance(first, ToolMessage)
    assert (first.content, first.status, first.tool_call_id) == ('{"receipt": 1}', "success", "call-1")
    assert again.model_dump() == first.model_dump()
    assert charge.invoke(call(), in_thread("b")).content == '{"receipt": 2}', "ids may repeat between threads"
    assert charge.invoke(call(), in_thread("a/call-1")).content == '{"receipt": 3}'
    assert charge.invoke(call(call_id="x" * 2000)).content == charge.invoke(call(call_id="x" * 2000)).content
    refused = charge.invoke(call(cents=-1, call_id="call-2"))
    assert (refused.status, charge.invoke(call(cents=-1, call_id="call-2")).status) == ("error", "error")
    with pytest.raises(StepConflictError):
        charge.invoke(call(cents=5), in_thread("a"))
    with pytest.raises(InvalidRequestError, match="invoke it with a ToolCall that has an id"):
        charge.invoke({"order": "o-17", "cents": 990})
    assert len(shop.charged) == 4


def test_an_unknown_call_is_not_repeated_and_an_operator_s_result_is_the_answer(store: InlineKeyValueStore) -> None:
    shop = Shop()
    charge = once_tool(store, shop.tool(), namespace="charges")
    for call_id, value in (("call-1", "found it"), ("call-2", {"receipt": 7})):
        lost = store.step_begin("charges", call_id).token or 0
        store.step_finish("charges", call_id, lost, "unknown")
        with pytest.raises(EffectUnknownError):
            charge.invoke(call(call_id=call_id))
        store.step_finish("charges", call_id, lost, "done", value=value)
        content = charge.invoke(call(call_id=call_id)).content
        assert (content if isinstance(value, str) else json.loads(content)) == value
    assert shop.charged == []


def test_coroutines_on_every_kind_of_store(store: InlineKeyValueStore) -> None:
    charged: list[str] = []

    @tool(response_format="content_and_artifact")
    async def charge(order: str, cents: int) -> tuple[str, dict[str, int]]:
        """Charge an order."""
        await asyncio.sleep(0)
        charged.append(order)
        return f"charged {cents}", {"cents": cents}

    async def check(kv_store: InlineKeyValueStore) -> None:
        once = once_tool(kv_store, charge)
        calls = [once.ainvoke(call(f"o-{number}", call_id=f"call-{number}")) for number in range(40)]
        assert [message.artifact for message in await asyncio.gather(*calls)] == [{"cents": 990}] * 40
        again = await once.ainvoke(call("o-7", call_id="call-7"))
        assert (again.content, again.artifact) == ("charged 990", {"cents": 990})

    asyncio.run(check(store))
    assert sorted(charged) == sorted(f"o-{number}" for number in range(40))


def test_what_cannot_be_recorded_is_not_repeated(store: InlineKeyValueStore) -> None:
    handed: list[str] = []

    @tool
    def charge(order: str, cents: int, tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Hand over."""
        handed.append(f"{order} {cents} {tool_call_id}")
        return Command(goto="elsewhere")

    once = once_tool(store, charge)
    for _ in range(2):
        with pytest.raises(StepUnrecordedError):
            once.invoke(call())
    assert handed == ["o-17 990 call-1"]


def compiled(tool_of_graph: BaseTool, wrap: Callable[..., Any] | None = None) -> Any:
    """A graph whose model makes one call, and which runs its tools."""
    builder = StateGraph(MessagesState)
    builder.add_node("model", lambda _: {"messages": [AIMessage("", tool_calls=[call()], id="model-1")]})
    builder.add_node("tools", ToolNode([tool_of_graph], wrap_tool_call=wrap))
    builder.add_edge(START, "model")
    builder.add_edge("model", "tools")
    builder.add_edge("tools", END)
    return builder.compile(checkpointer=InMemorySaver())


def test_a_resumed_graph_does_not_repeat_the_effect(store: InlineKeyValueStore) -> None:
    shop, attempts = Shop(), []

    def die_once(request: Any, execute: Callable[[Any], Any]) -> Any:
        answer = execute(request)
        attempts.append(answer.content)
        if len(attempts) == 1:
            raise SystemExit("killed before the checkpoint")
        return answer

    graph = compiled(once_tool(store, shop.tool()), die_once)
    with pytest.raises(SystemExit):
        graph.invoke({"messages": ["charge it"]}, in_thread("a"))
    assert graph.invoke(None, in_thread("a"))["messages"][-1].content == '{"receipt": 1}'
    assert (len(attempts), len(shop.charged)) == (2, 1)


def test_an_interrupt_releases_the_call_and_injected_state_is_not_compared(store: InlineKeyValueStore) -> None:
    charged: list[str] = []

    @tool
    def charge(order: str, cents: int, state: Annotated[dict[str, Any], InjectedState]) -> str:
        """Charge an order."""
        answer = interrupt(f"charge {cents}?")
        charged.append(order)
        return f"{answer} after {len(state['messages'])} messages"

    graph = compiled(once_tool(store, charge))
    graph.invoke({"messages": ["charge it"]}, in_thread("a"))
    assert store.step_status("tool-calls", "a/call-1").state == "absent"
    resumed = graph.invoke(Command(resume="yes"), in_thread("a"))
    assert resumed["messages"][-1].content == "yes after 2 messages"
    assert charged == ["o-17"]


def test_a_synchronous_call_over_an_asynchronous_store_does_not_block_the_loop() -> None:
    charge = once_tool(AsyncKeyValueStore(Settings.from_mapping(_IN_MEMORY)), Shop().tool())

    async def invoke() -> None:
        charge.invoke(call())

    with pytest.raises(asyncio.InvalidStateError, match="ainvoke"):
        asyncio.run(invoke())
