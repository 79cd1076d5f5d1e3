"""The session for OpenAI's Agents SDK: the SDK's own session and kvworker's give the same results."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, RunConfig, Runner, SQLiteSession
from agents.memory import Session, SessionSettings
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.support_chat import StandIn
from kvworker import (
    InlineKeyValueStore,
    InvalidKeyError,
    InvalidRequestError,
    InvalidTTLError,
    InvalidValueTypeError,
    NamespaceQuotaExceededError,
    ValueSerializationError,
)
from kvworker.integrations.openai_agents import KvworkerSession
from tests.support.counting import CountingStore

_sessions = (f"session-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def kv_store() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as store:
        yield store


@pytest.fixture
def session(kv_store: InlineKeyValueStore) -> KvworkerSession:
    return KvworkerSession(next(_sessions), kv_store)


def item(text: Any) -> Any:
    return {"role": "user", "content": text}


_ITEMS = st.lists(st.builds(item, st.text("a\x00é😀", max_size=3)), max_size=3)
_CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("add_items"), _ITEMS),
        st.tuples(st.just("get_items"), st.none() | st.integers(-1, 4)),
        st.tuples(st.sampled_from(["pop_item", "pop_item", "clear_session"])),
    ),
    max_size=20,
)


@settings(max_examples=100)
@given(calls=_CALLS, read_limit=st.none() | st.integers(1, 3))
def test_random_calls_give_the_same_results(
    kv_store: InlineKeyValueStore, calls: list[tuple[Any, ...]], read_limit: int | None
) -> None:
    async def use(session: Session) -> list[Any]:
        made = [await getattr(session, name)(*arguments) for name, *arguments in calls]
        return [*made, await session.get_items()]

    limits = SessionSettings(limit=read_limit)
    expected = SQLiteSession("s", session_settings=limits)
    try:
        found = asyncio.run(use(KvworkerSession(next(_sessions), kv_store, session_settings=limits)))
        # SQLite takes a limit below 0 for none.
        if not any(call[:1] == ("get_items",) and (call[1] or 0) < 0 for call in calls):
            assert found == asyncio.run(use(expected))
    finally:
        expected.close()


def test_it_is_a_session_of_the_sdk(session: KvworkerSession) -> None:
    assert isinstance(session, Session)
    agent = Agent(name="support", model=StandIn())

    async def say(text: str) -> str:
        config = RunConfig(tracing_disabled=True)
        return str((await Runner.run(agent, text, session=session, run_config=config)).final_output)

    assert asyncio.run(say("one")) == "You wrote: one"
    assert asyncio.run(say("two")) == "You wrote: one / two"
    assert [each["role"] for each in asyncio.run(session.get_items())] == ["user", "assistant"] * 2  # type: ignore[typeddict-item]


def test_callers_at_the_same_time_lose_nothing_and_pop_no_item_twice(kv_store: InlineKeyValueStore) -> None:
    name = next(_sessions)

    async def use() -> tuple[list[Any], list[Any]]:
        sessions = [KvworkerSession(name, kv_store) for _ in range(8)]
        await asyncio.gather(*(each.add_items([item(f"{n}a"), item(f"{n}b")]) for n, each in enumerate(sessions)))
        added = await sessions[0].get_items()
        popped = await asyncio.gather(*(each.pop_item() for each in sessions))
        return added, [*popped, *await sessions[0].get_items()]

    added, taken = asyncio.run(use())
    texts = [each["content"] for each in added]
    assert sorted(texts) == sorted(f"{n}{half}" for n in range(8) for half in "ab")
    assert all(texts[texts.index(f"{n}a") + 1] == f"{n}b" for n in range(8))
    assert sorted(each["content"] for each in taken) == sorted(texts)


def test_the_oldest_items_are_dropped_and_the_session_expires(kv_store: InlineKeyValueStore) -> None:
    name = next(_sessions)
    session = KvworkerSession(name, kv_store, max_items=3, ttl_seconds=100)
    asyncio.run(session.add_items([item(n) for n in range(5)]))
    asyncio.run(session.add_items([item(5)]))
    assert asyncio.run(session.get_items()) == [item(3), item(4), item(5)]
    for call in (session.pop_item, lambda: KvworkerSession(name, kv_store).pop_item()):
        asyncio.run(call())
        entry = kv_store.get(f"sessions:{name}", "items")
        assert entry.ttl_seconds == pytest.approx(100, abs=20)
    asyncio.run(session.pop_item())
    assert not kv_store.get(f"sessions:{name}", "items").found


def test_a_full_session_refuses_items_and_keeps_what_it_has(kv_store: InlineKeyValueStore) -> None:
    session = KvworkerSession(next(_sessions), kv_store)
    kv_store.set_quota(f"sessions:{session.session_id}", 100)
    asyncio.run(session.add_items([item("kept")]))
    with pytest.raises(NamespaceQuotaExceededError):
        asyncio.run(session.add_items([item("x" * 100)]))
    with pytest.raises(ValueSerializationError):
        asyncio.run(session.add_items([item((1, 2))]))
    assert asyncio.run(session.get_items()) == [item("kept")]


def test_adding_is_one_message() -> None:
    with CountingStore() as kv_store:
        session = KvworkerSession("s", kv_store)
        asyncio.run(session.add_items([item("a"), item("b")]))
        asyncio.run(session.add_items([]))
        asyncio.run(session.pop_item())
        assert kv_store.sent == ["kv_append", "kv_get", "kv_set"]
        kv_store.set("sessions:s", "items", "foreign")
        with pytest.raises(InvalidValueTypeError, match="a list"):
            asyncio.run(session.get_items())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"prefix": "a:b"}, InvalidKeyError),
        ({"session_id": "x" * 300}, InvalidKeyError),
        ({"max_items": 0}, InvalidRequestError),
        ({"max_items": True}, InvalidRequestError),
        ({"max_items": "5"}, InvalidRequestError),
        ({"ttl_seconds": 0}, InvalidTTLError),
    ],
    ids=str,
)
def test_wrong_options_are_refused(
    kv_store: InlineKeyValueStore, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        KvworkerSession(**{"session_id": "s", "store": kv_store, **options})
