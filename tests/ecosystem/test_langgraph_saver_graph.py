"""Graphs with kvworker's checkpointer: they behave as with LangGraph's own, and two runs of a thread are fenced."""

from __future__ import annotations

import asyncio
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Durability, Send, StateSnapshot, interrupt

from kvworker import InlineKeyValueStore
from kvworker.integrations.langgraph import KvworkerSaver, StaleWriterError

THREAD: RunnableConfig = {"configurable": {"thread_id": "7"}}


def _extend(said: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*said, *(word for write in writes for word in write)]


class Talk(TypedDict):
    said: Annotated[list[str], operator.add]
    delta: Annotated[list[str], DeltaChannel(_extend, snapshot_frequency=4)]
    topic: str


class Word(TypedDict):
    word: str


@pytest.fixture(autouse=True)
def _no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")


@pytest.fixture
def kv_store() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as store:
        yield store


def _greet(state: Talk) -> dict[str, Any]:
    return {"said": ["hello"], "delta": ["hello"], "topic": "names"}


def _ask(state: Talk) -> dict[str, Any]:
    name = interrupt("your name?")
    return {"said": [f"hello {name}"], "delta": [name]}


def _fan_out(state: Talk) -> list[Send]:
    return [Send("shout", {"word": word}) for word in ("a", "b", "c")]


def _shout(state: Word) -> dict[str, Any]:
    return {"said": [state["word"].upper()], "delta": [state["word"].upper()]}


def compile_talk(saver: BaseCheckpointSaver[Any]) -> CompiledStateGraph[Talk, None, Talk, Talk]:
    """Build a graph with a subgraph that interrupts, parallel tasks and a delta channel."""
    inner = StateGraph(Talk)
    inner.add_node("greet", _greet)
    inner.add_node("ask", _ask)
    inner.add_edge(START, "greet")
    inner.add_edge("greet", "ask")
    builder = StateGraph(Talk)
    builder.add_node("talk", inner.compile())
    builder.add_node("shout", _shout)
    builder.add_edge(START, "talk")
    builder.add_conditional_edges("talk", _fan_out, ["shout"])
    builder.add_edge("shout", END)
    return builder.compile(checkpointer=saver)


def _comparable(snapshots: Sequence[StateSnapshot]) -> list[Any]:
    return [
        (
            snapshot.values,
            snapshot.next,
            snapshot.metadata and (snapshot.metadata.get("source"), snapshot.metadata.get("step")),
            [(task.name, task.result, [each.value for each in task.interrupts]) for task in snapshot.tasks],
            snapshot.parent_config is None,
        )
        for snapshot in snapshots
    ]


def _without_id(state: dict[str, Any]) -> dict[str, Any]:
    """Replace the interrupts by their values, since their ids are random."""
    return {**state, "__interrupt__": [each.value for each in state.get("__interrupt__", ())]}


def _talk(graph: CompiledStateGraph[Talk, None, Talk, Talk], durability: Durability) -> list[Any]:
    seen: list[Any] = []
    begun = graph.invoke({"said": ["hi"], "delta": ["hi"], "topic": "none"}, THREAD, durability=durability)
    seen.append(_without_id(begun))
    seen.append(_comparable([graph.get_state(THREAD, subgraphs=True)])[0][0])
    seen.append(graph.invoke(Command(resume="ada"), THREAD, durability=durability))
    history = list(graph.get_state_history(THREAD))
    seen.append(_comparable(history))
    # Time travel: run again from the past, and change the past.
    again = graph.invoke(None, history[1].config, durability=durability)
    seen.append(_without_id(again))
    forked = graph.update_state(history[-1].config, {"said": ["changed"]})
    seen.append(_comparable([graph.get_state(forked)]))
    seen.append(_comparable(list(graph.get_state_history(THREAD, filter={"source": "loop"}, limit=3))))
    seen.append(_comparable(list(graph.get_state_history(THREAD, before=history[1].config))))
    return seen


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_graph_gives_the_same_results_as_with_langgraphs_own_checkpointer(
    kv_store: InlineKeyValueStore, durability: Durability
) -> None:
    expected = _talk(compile_talk(InMemorySaver()), durability)
    assert _talk(compile_talk(KvworkerSaver(kv_store)), durability) == expected


def test_a_copy_with_another_serializer_is_the_same_checkpointer(kv_store: InlineKeyValueStore) -> None:
    saver = KvworkerSaver(kv_store, serde=JsonPlusSerializer(allowed_msgpack_modules=[("tests", "Something")]))
    graph, copy = compile_talk(saver), saver.with_allowlist([("tests", "Nothing")])
    graph.invoke({"said": [], "delta": [], "topic": ""}, THREAD)
    assert copy is not saver
    assert copy.get_tuple(THREAD) == saver.get_tuple(THREAD)


def test_another_process_resumes_a_run(kv_store: InlineKeyValueStore) -> None:
    begun = compile_talk(KvworkerSaver(kv_store)).invoke({"said": [], "delta": [], "topic": ""}, THREAD)
    assert [each.value for each in begun["__interrupt__"]] == ["your name?"]
    resumed = compile_talk(KvworkerSaver(kv_store, ttl_seconds=60)).invoke(Command(resume="bob"), THREAD)
    assert resumed["said"] == ["hello", "hello bob", "A", "B", "C"]
    assert resumed["delta"] == ["hello", "bob", "A", "B", "C"]


def test_a_pruned_thread_goes_on(kv_store: InlineKeyValueStore) -> None:
    saver = KvworkerSaver(kv_store)
    graph, whole = compile_talk(saver), compile_talk(InMemorySaver())
    kept = []
    for turn in range(6):
        for each in (graph, whole):
            each.invoke({"said": [f"turn {turn}"], "delta": [f"turn {turn}"], "topic": ""}, THREAD)
            each.invoke(Command(resume="ada"), THREAD)
        assert graph.get_state(THREAD).values == whole.get_state(THREAD).values
        saver.prune(["7"])
        assert graph.get_state(THREAD).values == whole.get_state(THREAD).values
        kept.append(len(list(saver.list(THREAD))))
    # A delta channel needs the checkpoints since its last snapshot. The subgraphs of the turns are over.
    assert 1 < max(kept) < 8


class Turn(TypedDict):
    said: Annotated[list[str], operator.add]


def _two_steps(
    saver: BaseCheckpointSaver[Any], pause: Callable[[], None]
) -> CompiledStateGraph[Turn, None, Turn, Turn]:
    def first(state: Turn) -> dict[str, list[str]]:
        pause()
        return {"said": ["first"]}

    builder = StateGraph(Turn)
    builder.add_node("first", first)
    builder.add_node("second", lambda _: {"said": ["second"]})
    builder.add_edge(START, "first")
    builder.add_edge("first", "second")
    builder.add_edge("second", END)
    return builder.compile(checkpointer=saver)


class _MeetingSaver(KvworkerSaver):
    """Lets two runs read the thread before either writes."""

    def __init__(self, store: InlineKeyValueStore, barrier: threading.Barrier) -> None:
        super().__init__(store)
        self.barrier = barrier

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = super().get_tuple(config)
        self.barrier.wait()
        return found


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("in_one_process", [True, False])
@pytest.mark.parametrize("has_checkpoints", [True, False])
def test_of_two_runs_at_a_time_one_is_refused_and_the_other_is_whole(
    kv_store: InlineKeyValueStore, durability: Durability, in_one_process: bool, has_checkpoints: bool
) -> None:
    plain = _two_steps(KvworkerSaver(kv_store), lambda: None)
    if has_checkpoints:
        plain.invoke({"said": ["before"]}, THREAD)
    before = len(list(plain.get_state_history(THREAD)))
    barrier = threading.Barrier(2, timeout=60)
    savers = [_MeetingSaver(kv_store, barrier)] * 2 if in_one_process else []
    savers = savers or [_MeetingSaver(kv_store, barrier) for _ in range(2)]

    def run(name: str, saver: KvworkerSaver) -> Any:
        try:
            graph = _two_steps(saver, lambda: None)
            return graph.invoke({"said": [name]}, THREAD, durability=durability)["said"]
        except StaleWriterError as error:
            return error

    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(run, ["a", "b"], savers))
    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, StaleWriterError)]
    (said,) = [outcome for outcome in outcomes if outcome is not refused]
    assert said[-3:] in (["a", "first", "second"], ["b", "first", "second"])
    assert plain.get_state(THREAD).values == {"said": said}
    # There is one chain, without forks.
    snapshots = list(plain.get_state_history(THREAD))
    parents = [each.parent_config and each.parent_config["configurable"]["checkpoint_id"] for each in snapshots]
    assert len(set(parents)) == len(parents) > before


def test_a_run_that_was_overtaken_learns_it_and_continues_with_another_run(kv_store: InlineKeyValueStore) -> None:
    saver = KvworkerSaver(kv_store)
    other = _two_steps(KvworkerSaver(kv_store), lambda: None)
    graph = _two_steps(saver, lambda: None)
    graph.invoke({"said": ["one"]}, THREAD)

    def overtake() -> None:
        other.update_state(THREAD, {"said": ["by hand"]})

    overtaken = _two_steps(saver, overtake)
    with pytest.raises(StaleWriterError, match=r"thread '7': this run continues checkpoint .* of another writer"):
        overtaken.invoke({"said": ["two"]}, THREAD, durability="sync")
    assert graph.invoke({"said": ["three"]}, THREAD)["said"][-5:] == ["two", "by hand", "three", "first", "second"]


def test_a_run_whose_thread_is_deleted_does_not_bring_it_back(kv_store: InlineKeyValueStore) -> None:
    saver = KvworkerSaver(kv_store)
    graph = _two_steps(saver, lambda: saver.delete_thread("7"))
    with pytest.raises(StaleWriterError, match="it was deleted or has expired"):
        graph.invoke({"said": ["one"]}, THREAD)
    assert saver.get_tuple(THREAD) is None
    assert _two_steps(saver, lambda: None).invoke({"said": ["two"]}, THREAD)["said"] == ["two", "first", "second"]


def test_coroutines_over_a_synchronous_store(kv_store: InlineKeyValueStore) -> None:
    async def use() -> Any:
        graph = compile_talk(KvworkerSaver(kv_store))
        await graph.ainvoke({"said": [], "delta": [], "topic": ""}, THREAD)
        said = (await graph.ainvoke(Command(resume="ada"), THREAD))["said"]
        return said, len([each async for each in graph.aget_state_history(THREAD)])

    assert asyncio.run(use()) == (["hello", "hello ada", "A", "B", "C"], 4)
