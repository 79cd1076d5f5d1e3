"""FastMCP keeps its state in kvworker: real servers and clients in this process, over the py-key-value store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastmcp import Client, Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_session
from fastmcp.server.middleware.caching import ResponseCachingMiddleware
from fastmcp.server.sessions import SessionId, SessionProvider

from kvworker import InlineKeyValueStore
from kvworker.integrations.key_value import KvworkerKeyValueStore

pytestmark = pytest.mark.anyio

STATE = "agents/fastmcp_state"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def inner() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as store:
        yield store


def make_server(inner: InlineKeyValueStore) -> FastMCP[Any]:
    """Make a server as each process of a fleet does. The processes share only the kvworker store."""
    server = FastMCP("agent", session_state_store=KvworkerKeyValueStore(inner, namespace_prefix="agents/"))
    server.add_provider(SessionProvider())

    @server.tool
    async def remember(ctx: Context, fact: dict[str, Any]) -> str:
        await ctx.set_state("fact", fact)
        return ctx.session_id

    @server.tool
    async def recall(ctx: Context) -> dict[str, Any] | None:
        fact: dict[str, Any] | None = await ctx.get_state("fact")
        return fact

    @server.tool
    async def forget(ctx: Context) -> None:
        await ctx.delete_state("fact")

    @server.tool
    async def remember_half_a_character(ctx: Context) -> None:
        await ctx.set_state("fact", "\ud800")

    @server.tool
    async def note(session_id: SessionId, text: str) -> None:
        session = await get_session(session_id)
        await session.set("notes", [*await session.get("notes", []), text])

    @server.tool
    async def notes(session_id: SessionId) -> list[str]:
        found: list[str] = await (await get_session(session_id)).get("notes", [])
        return found

    return server


async def call(client: Client[Any], tool: str, **arguments: Any) -> Any:
    return (await client.call_tool(tool, arguments)).data


def state_keys(inner: InlineKeyValueStore) -> list[str]:
    return [entry.key for entry in inner.list_keys(STATE).entries]


# State outlives a request only on connections that begin with a handshake.
async def test_the_state_of_a_connection(inner: InlineKeyValueStore) -> None:
    server = make_server(inner)
    fact = {"text": "grüße", "tags": ["a", None], "score": 0.5}
    async with Client(server, mode="legacy") as one, Client(server, mode="legacy") as other:
        session_id = await call(one, "remember", fact=fact)
        assert await call(one, "recall") == fact
        assert await call(other, "recall") is None
        assert state_keys(inner) == [f"{session_id}:fact"]
        stored = inner.get(STATE, f"{session_id}:fact")
        assert stored.value == {"value": fact}
        assert stored.ttl_seconds == pytest.approx(86400, abs=60)
        await call(one, "forget")
        assert await call(one, "recall") is None
        assert state_keys(inner) == []


async def test_state_within_a_request_without_handshake(inner: InlineKeyValueStore) -> None:
    async with Client(make_server(inner)) as client:
        session_id = await call(client, "remember", fact={"a": 1})
    assert inner.get(STATE, f"{session_id}:fact").value == {"value": {"a": 1}}


async def test_servers_share_their_sessions(inner: InlineKeyValueStore) -> None:
    async with Client(make_server(inner)) as one, Client(make_server(inner)) as other:
        session_id = await call(one, "create_session")
        await call(one, "note", session_id=session_id, text="first")
        await call(other, "note", session_id=session_id, text="second")
        assert await call(one, "notes", session_id=session_id) == ["first", "second"]
        (key,) = state_keys(inner)
        value: Any = inner.get(STATE, key).value
        assert session_id in key
        assert value["value"]["state"] == {"notes": ["first", "second"]}
        await call(other, "end_session", session_id=session_id)
        assert state_keys(inner) == []
        with pytest.raises(ToolError, match="unknown session"):
            await call(one, "notes", session_id=session_id)


async def test_state_that_is_not_json_raises_fastmcps_error(inner: InlineKeyValueStore) -> None:
    async with Client(make_server(inner)) as client:
        with pytest.raises(ToolError, match="'fact' is not serializable"):
            await call(client, "remember_half_a_character")
    assert state_keys(inner) == []


async def test_the_response_cache(inner: InlineKeyValueStore) -> None:
    server = FastMCP("agent")
    server.add_middleware(ResponseCachingMiddleware(cache_storage=KvworkerKeyValueStore(inner)))
    runs = []

    @server.tool
    async def slow(number: int) -> int:
        runs.append(number)
        return number * 2

    async with Client(server) as client:
        assert [await call(client, "slow", number=2), await call(client, "slow", number=2)] == [4, 4]
    assert runs == [2]
    kept = inner.list_keys("tools/call").entries
    assert [entry.ttl_seconds for entry in kept] == [pytest.approx(3600, abs=60)]
