"""A LangGraph agent that books a room, is killed, and books no second one when its graph is resumed.

``python -m examples.resumed_graph DIRECTORY`` runs it on SQLite, until it is done or killed: with ``--die`` it kills
itself after the booking and before LangGraph has written its checkpoint. Run it again to resume it. LangGraph then runs
the node with the tools again, and ``once_tool`` answers with the recorded message.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from kvworker import InlineKeyValueStore, Settings
from kvworker.integrations.langchain import once_tool
from kvworker.integrations.langgraph import KvworkerSaver

THREAD: RunnableConfig = {"configurable": {"thread_id": "trip-7"}}


def open_store(directory: Path) -> InlineKeyValueStore:
    """Open the store, which outlives the process. A program with a worker uses ``KeyValueStore``."""
    adapters = {"sqlite": {"url": f"sqlite:///{directory}/kv.sqlite", "migrate_on_start": True}}
    return InlineKeyValueStore(
        Settings.from_mapping({"tools": {"kv_store": {"default_adapter": "sqlite", "adapters": adapters}}})
    )


def run(directory: Path, *, die: bool) -> str:
    """Begin the trip, or resume it, and return the last message."""
    bookings = directory / "bookings"

    @tool
    def book(room: str) -> str:
        """Book a room."""
        with bookings.open("a", encoding="utf-8") as file:  # the hotel's own books
            file.write(f"{room}\n")
        return f"booked room {room}"

    def perform(request: Any, execute: Callable[[Any], Any]) -> Any:
        answer = execute(request)
        if die:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    with open_store(directory) as store:
        builder = StateGraph(MessagesState)
        builder.add_node("model", ask_model)
        builder.add_node("tools", ToolNode([once_tool(store, book)], wrap_tool_call=perform))
        builder.add_edge(START, "model")
        builder.add_edge("model", "tools")
        builder.add_edge("tools", END)
        graph = builder.compile(checkpointer=KvworkerSaver(store))
        begun = bool(graph.get_state(THREAD).values)
        state = graph.invoke(
            None if begun else {"messages": [HumanMessage("Book a room for me.")]}, THREAD, durability="sync"
        )
        return str(state["messages"][-1].content)


def ask_model(state: MessagesState) -> dict[str, Any]:  # noqa: ARG001 - a real model reads it
    """Answer as a language model would: with the call of a tool."""
    call = {"type": "tool_call", "id": "call-1", "name": "book", "args": {"room": "12"}}
    return {"messages": [AIMessage("", tool_calls=[call])]}


if __name__ == "__main__":
    print(run(Path(sys.argv[1]), die="--die" in sys.argv))  # noqa: T201 - the example's output
