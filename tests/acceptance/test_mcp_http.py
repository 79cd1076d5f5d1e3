"""The MCP server over streamable HTTP, with the SDK's client: sessions, personas, foreign hosts and shutdown."""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mcp import Client

from kvworker import KeyValueStore
from kvworker.tools import TOOLS
from tests.support.mcp_http import (
    ANNOUNCEMENT,
    INITIALIZE,
    SESSION_HEADER,
    HttpServer,
    close_session,
    open_session,
    post,
    serving,
)
from tests.support.mcp_session import fail, run_within, use, use_every_tool, write_config
from tests.support.processes import wait_until


@pytest.mark.usefixtures("celery_setup")
def test_every_tool_works_through_the_queue_and_the_server_stops_cleanly(tmp_path: Path, kv_config: Path) -> None:
    async def session(url: str) -> None:
        async with Client(url) as client:
            await use_every_tool(client)
            assert (await use(client, "kv_usage"))["namespace"] is None

    async def stop_while_connected(server: HttpServer) -> None:
        async with Client(server.url, mode="legacy") as client:
            await use_every_tool(client)
            server.kill("SIGTERM")

    with serving(tmp_path, kv_config) as server:
        run_within(session(server.url))
        run_within(stop_while_connected(server))
        wait_until(lambda: server.status == "exited", what="the server's end")
        assert server.exit_code == 0
        # On a busy machine the client's stream is cut, and uvicorn says so in a line.
        assert server.logs().startswith(f"{ANNOUNCEMENT}{server.url}\n")
        assert "Traceback" not in server.logs()


@pytest.mark.usefixtures("celery_setup")
def test_a_write_that_arrives_twice_with_its_id_is_applied_once_in_its_session(tmp_path: Path, kv_config: Path) -> None:
    count = {"name": "kv_increment", "arguments": {"namespace": "n", "key": "k"}}

    def counted(url: str, session: str, number: int) -> Any:
        return post(url, "tools/call", count, {SESSION_HEADER: session}, number=number).message["result"]

    with serving(tmp_path, kv_config) as server:
        one, other = open_session(server.url), open_session(server.url)
        results = [counted(server.url, *call) for call in ((one, 5), (one, 5), (one, 6), (other, 5))]
    assert [result["structuredContent"]["value"] for result in results] == [1, 1, 2, 3]


@pytest.mark.usefixtures("celery_setup")
def test_ids_may_be_used_again_where_the_protocol_has_no_sessions(tmp_path: Path, kv_config: Path) -> None:
    count = {"name": "kv_increment", "arguments": {"namespace": "n", "key": "k"}}
    meta = {"protocolVersion": "2026-07-28", "clientCapabilities": {}, "clientInfo": INITIALIZE["clientInfo"]}
    params = {**count, "_meta": {f"io.modelcontextprotocol/{name}": value for name, value in meta.items()}}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "kv_increment"}
    with serving(tmp_path, kv_config) as server:
        results = [post(server.url, "tools/call", params, headers).message["result"] for _ in range(2)]
    assert [result["structuredContent"]["value"] for result in results] == [1, 2]


class TestSessions:
    @pytest.fixture
    def config_overrides(self) -> dict[str, Any]:
        flags = ["type.system.kv_store_access", "type.system.kv_store_write"]
        agent = {"flags": flags, "namespaces": {"mcp-session-*": ["read", "write"]}}
        return {"policies": {"personas": {"agent": agent, "operator": {"flags": flags}}}}

    @pytest.mark.usefixtures("celery_setup")
    def test_sessions_have_their_own_namespaces(self, tmp_path: Path, kv_config: Path, store: KeyValueStore) -> None:
        operator = store.as_persona("operator")

        async def sessions(url: str) -> None:
            async with Client(url) as one, Client(url, mode="legacy") as other:
                await use(one, "kv_set", namespace="n", key="k", value="one's")
                assert (await use(other, "kv_get", namespace="n", key="k"))["found"] is False
                assert (await use(other, "kv_list_namespaces"))["namespaces"] == []
                await use(other, "kv_set", namespace="n", key="k", value="other's")
                (usage,) = (await use(one, "kv_list_namespaces"))["namespaces"]
                assert (usage["namespace"], usage["entry_count"]) == ("n", 1)
                for known in operator.list_namespaces().namespaces:
                    assert (await use(one, "kv_get", namespace=known.namespace, key="k"))["found"] is False
                refused = await fail(one, "kv_set", namespace="n", key="k", value=1, if_absent=True)
                assert (refused["details"]["namespace"], "mcp-session" in refused["message"]) == ("n", False)
                assert (await use(one, "kv_get", namespace="n", key="k"))["value"] == "one's"

        with serving(tmp_path, kv_config, "--session-prefix", "--persona", "agent") as server:
            run_within(sessions(server.url))
        names = [str(usage.namespace) for usage in operator.list_namespaces().namespaces]
        assert len(names) == 2
        assert all(name.startswith("mcp-session-") and name.endswith("/n") for name in names)


def test_a_persona_is_offered_and_allowed_only_its_tools(tmp_path: Path) -> None:
    reader = {"flags": ["type.system.kv_store_access"], "namespaces": {"shared": ["read"]}}
    config = write_config(tmp_path, policies={"personas": {"reader": reader}})

    async def session(url: str) -> None:
        async with Client(url) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert names == {"kv_get", "kv_step_status", "kv_list_keys", "kv_list_namespaces", "kv_usage", "kv_batch"}
            await deny(client, "kv_get", namespace="private", key="k")
            await deny(client, "kv_set", namespace="shared", key="k", value=1)
            await deny(client, "kv_usage")

    async def deny(client: Client, name: str, **arguments: Any) -> None:
        denied = await fail(client, name, **arguments)
        assert (denied["type"], denied["changed"]) == ("PolicyDeniedError", "nothing")
        assert denied["details"]["persona"] == "reader"

    with serving(tmp_path, config, "--persona", "reader") as server:
        run_within(session(server.url))
        assert server.logs().count("denied: persona 'reader'") == 3
        assert refusals(server) == {"host": 421, "page": 403}


class TestLimits:
    """The bounds that a server checks before it calls a tool."""

    def test_the_number_of_sessions_is_bounded_and_a_closed_one_makes_room(self, tmp_path: Path) -> None:
        with serving(tmp_path, write_config(tmp_path), "--max-sessions", "3") as server:
            sessions = [open_session(server.url) for _ in range(3)]
            refused = post(server.url, "initialize", INITIALIZE)
            assert (refused.status, refused.session_id) == (503, None)
            assert "Too many open sessions" in refused.message["error"]["message"]
            answer = post(server.url, "tools/list", {}, {SESSION_HEADER: sessions[0]}, number=2)
            assert len(answer.message["result"]["tools"]) == len(TOOLS)
            assert close_session(server.url, sessions[0]) == 200
            open_session(server.url)

    def test_an_idle_session_ends(self, tmp_path: Path) -> None:
        options = ("--max-sessions", "1", "--session-idle-seconds", "0.2")
        with serving(tmp_path, write_config(tmp_path), *options) as server:
            first = open_session(server.url)
            wait_until(
                lambda: post(server.url, "initialize", INITIALIZE).status == 200,
                what="room for another session",
                timeout_seconds=60,
            )
            assert post(server.url, "tools/list", {}, {SESSION_HEADER: first}, number=2).status == 404

    def test_hosts_and_origins_that_only_begin_like_an_allowed_one_are_refused(self, tmp_path: Path) -> None:
        with serving(tmp_path, write_config(tmp_path)) as server:
            for host in (
                "localhost:1@evil.example",
                "127.0.0.1:80.evil.example",
                "localhost:",
                "[::1]:x",
                "localhost:8/",
            ):
                assert post(server.url, "initialize", INITIALIZE, {"Host": host}).status == 421, host
            for origin in ("http://localhost:1@evil.example", "http://127.0.0.1:80.evil.example"):
                assert post(server.url, "initialize", INITIALIZE, {"Origin": origin}).status == 403, origin
            for host in ("localhost:9", "127.0.0.1", "[::1]:65535"):
                headers = {"Host": host, "Origin": f"http://{host}"}
                assert post(server.url, "initialize", INITIALIZE, headers).status == 200, host

    @pytest.mark.parametrize("version", ["2026-07-28", "2030-01-01", "nonsense"])
    def test_with_own_namespaces_only_versions_with_sessions_are_named_as_supported(
        self, tmp_path: Path, version: str
    ) -> None:
        meta = {
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        headers = {"mcp-protocol-version": version, "mcp-method": "tools/list"}
        with serving(tmp_path, write_config(tmp_path), "--session-prefix") as server:
            answer = post(server.url, "tools/list", {"_meta": meta}, headers, number=7)
            assert answer.status == 400
            assert (answer.message["id"], answer.message["error"]["code"]) == (7, -32022)
            data = answer.message["error"]["data"]
            assert data["requested"] == version
            assert version not in data["supported"]
            for supported in data["supported"]:
                opened = post(server.url, "initialize", {**INITIALIZE, "protocolVersion": supported})
                assert opened.message["result"]["protocolVersion"] == supported


def refusals(server: HttpServer) -> dict[str, int]:
    """Return the statuses of a request for another host and of one from another origin."""
    statuses = {}
    for name, header in (("host", {"Host": "evil.example"}), ("page", {"Origin": "http://evil.example"})):
        with closing(HTTPConnection(urlsplit(server.url).netloc, timeout=10)) as connection:
            connection.request("POST", "/mcp", b"{}", {"Content-Type": "application/json", **header})
            statuses[name] = connection.getresponse().status
    return statuses
