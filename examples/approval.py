"""A LangGraph agent that waits for a person and continues in another process.

The graph prepares a refund and stops until somebody approves it. kvworker keeps its state in between, for a week: any
process that can reach the store may resume it. If two people answer at the same moment, one answer counts and the
other is refused.

Set ``KVWORKER_CONFIG`` to the configuration of a running kvworker, and run::

    python -m examples.approval ask refund-17 4200
    python -m examples.approval answer refund-17 yes
"""

from __future__ import annotations

import sys
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, interrupt

from kvworker import KeyValueStore
from kvworker.integrations.langgraph import KvworkerSaver, StaleWriterError

WEEK_SECONDS = 7 * 86_400


class Refund(TypedDict, total=False):
    """The state of a refund."""

    cents: int
    letter: str
    outcome: str


def write_letter(state: Refund) -> Refund:
    """Prepare the refund. An agent would call a model here."""
    return {"letter": f"We refund {state['cents'] / 100:.2f} euros."}


def ask_person(state: Refund) -> Refund:
    """Stop until a person answers."""
    answer = interrupt(f"Send this? {state['letter']}")
    return {"outcome": "sent" if answer == "yes" else "discarded"}


def compile_graph(store: KeyValueStore) -> CompiledStateGraph[Refund, None, Refund, Refund]:
    """Build the graph with its checkpointer."""
    builder = StateGraph(Refund)
    builder.add_node("write_letter", write_letter)
    builder.add_node("ask_person", ask_person)
    builder.add_edge(START, "write_letter")
    builder.add_edge("write_letter", "ask_person")
    builder.add_edge("ask_person", END)
    return builder.compile(checkpointer=KvworkerSaver(store, ttl_seconds=WEEK_SECONDS))


def run(store: KeyValueStore, command: str, thread_id: str, argument: str) -> str:
    """Ask about a refund, or answer the question, and return what to print."""
    graph = compile_graph(store)
    config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
    given: Any = {"cents": int(argument)} if command == "ask" else Command(resume=argument)
    try:
        state = graph.invoke(given, config, durability="sync")
    except StaleWriterError:
        return "somebody else has answered"
    questions = [each.value for each in state.get("__interrupt__", ())]
    return str(questions[0] if questions else state["outcome"])


if __name__ == "__main__":
    with KeyValueStore.from_config() as kv_store:
        print(run(kv_store, *sys.argv[1:4]))  # noqa: T201 - the program's output
