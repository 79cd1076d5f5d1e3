"""The MCP server on standard input and output, as a host starts it, with the SDK's client."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError, StdioServerParameters

from kvworker import KeyValueStore
from tests.support.command_line import clean_environ
from tests.support.mcp_http import INITIALIZE
from tests.support.mcp_session import fail, run_within, server_command, text_of, use, use_every_tool, write_config


def stdio(config: Path, *options: str) -> StdioServerParameters:
    command, *arguments = server_command(config, *options)
    return StdioServerParameters(command=command, args=arguments, env=clean_environ())


def start(config: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        server_command(config, *options),
        env=clean_environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(server: subprocess.Popen[str], request: str) -> Any:
    """Send a request and return its answer."""
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(request)
    server.stdin.flush()
    return json.loads(server.stdout.readline())


def message(method: str, params: dict[str, Any], number: int | str | None = None) -> str:
    numbered = {} if number is None else {"id": number}
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **numbered}) + "\n"


@pytest.mark.usefixtures("celery_setup")
def test_every_tool_through_the_queue(kv_config: Path, store: KeyValueStore) -> None:
    async def session() -> None:
        async with Client(stdio(kv_config, "--namespace-prefix", "agent")) as client:
            assert "idempotency_key" in (client.instructions or "")
            await use_every_tool(client)
            await use(client, "kv_set", namespace="n", key="k", value=1)
            with pytest.raises(MCPError, match=r"unknown tool 'kv_nope'; the tools are: kv_get, "):
                await client.call_tool("kv_nope", {})
            whole = await fail(client, "kv_usage")
            assert whole["message"] == "kv_usage needs the argument 'namespace'"
            store.set("agent/n", "deep", json.loads("[" * 250 + "]" * 250))
            deep = await fail(client, "kv_get", namespace="n", key="deep")
            assert (deep["type"], deep["changed"]) == ("ResultTooDeepError", "nothing")

    run_within(session())
    assert [usage.namespace for usage in store.list_namespaces().namespaces] == ["agent/n"]


@pytest.mark.usefixtures("celery_setup")
def test_a_write_that_arrives_twice_with_its_id_is_applied_once(kv_config: Path) -> None:
    count = {"name": "kv_increment", "arguments": {"namespace": "n", "key": "k"}}
    requests = [message("tools/call", count, number) for number in (2, 2, "2")]
    for session in range(2):
        server = start(kv_config)
        answers = [ask(server, request) for request in (message("initialize", INITIALIZE, 1), *requests)]
        results = [answer["result"]["structuredContent"] for answer in answers[1:]]
        before = 2 * session
        assert [result["value"] - before for result in results] == [1, 1, 2]
        assert [result["replayed"] for result in results] == [False, True, False]
        server.communicate(timeout=20)


def test_standard_output_carries_only_the_protocol_and_closing_it_stops_the_server(tmp_path: Path) -> None:
    server = start(write_config(tmp_path))
    calls = [
        message("initialize", INITIALIZE, 1),
        message("notifications/initialized", {}),
        message("tools/call", {"name": "kv_get", "arguments": {"namespace": "n", "key": " "}}, 2),
        message("tools/call", {"name": "kv_nope", "arguments": {}}, 3),
    ]
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.writelines(calls)
    server.stdin.flush()
    answers = [json.loads(server.stdout.readline()) for _ in range(3)]
    rest, errors = server.communicate(timeout=20)
    assert (rest, errors, server.returncode) == ("", "", 0)
    by_id = {answer["id"]: answer for answer in answers}
    assert by_id[1]["result"]["serverInfo"]["name"] == "kvworker"
    assert by_id[2]["result"]["isError"] is True
    assert by_id[3]["error"]["code"] == -32602


def test_every_line_that_is_no_message_is_answered_and_the_session_goes_on(tmp_path: Path) -> None:
    server = subprocess.Popen(
        server_command(write_config(tmp_path)),
        env=clean_environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    call = message("tools/call", {"name": "kv_get", "arguments": {"namespace": "n", "key": "KEY"}}, 2).encode()
    lines = {
        b'{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": }}\n': (2, -32700),
        b"no JSON at all\n": (None, -32700),
        call.replace(b"KEY", b"\xf0\x9f"): (2, -32700),
        call.replace(b"KEY", rb"\ud83d"): (2, -32700),
        b"\xef\xbb\xbf" + call: (2, -32700),
        call.replace(b'"KEY"', b"[" * 300 + b"]" * 300): (2, -32700),
        b"[" + call.strip() + b"]\n": (None, -32600),
        call.replace(b'"id": 2', b'"id": null'): (None, -32600),
        # The client must not wait for the rest of a line that has no end.
        b'{"jsonrpc": "2.0", "id": 9': (9, -32700),
    }
    rest, errors = server.communicate(message("initialize", INITIALIZE, 1).encode() + b"".join(lines), timeout=60)
    answers = [json.loads(line) for line in rest.splitlines()]
    refused = [(answer["id"], answer["error"]["code"]) for answer in answers if "error" in answer]
    assert refused == list(lines.values())
    assert [answer["id"] for answer in answers if "result" in answer] == [1]
    assert (errors, server.returncode) == (b"", 0)


def test_a_signal_stops_the_server_while_its_client_is_silent(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    servers = {number: start(config, "--session-prefix") for number in (signal.SIGINT, signal.SIGTERM)}
    for number, server in servers.items():
        assert ask(server, message("initialize", INITIALIZE, 1))["id"] == 1
        server.send_signal(number)
        assert server.wait(timeout=20) == 128 + number
        assert server.communicate(timeout=20) == ("", "")


class TestWithoutAWorkerAtFirst:
    @pytest.fixture
    def config_overrides(self) -> dict[str, Any]:
        return {"facade": {"timeout_seconds": 0.5}}

    def test_a_call_of_unknown_outcome_is_repeated_as_its_error_says(
        self, kv_config: Path, request: pytest.FixtureRequest
    ) -> None:
        async def session() -> None:
            async with Client(stdio(kv_config)) as client:
                late = await fail(client, "kv_increment", namespace="n", key="k")
                assert (late["type"], late["changed"]) == ("OperationTimeoutError", "unknown")
                operation_id = late["details"]["operation_id"]
                assert f"idempotency_key {operation_id!r}" in late["next"]
                request.getfixturevalue("worker_node")
                arguments = {"namespace": "n", "key": "k", "idempotency_key": operation_id}
                while (result := await client.call_tool("kv_increment", arguments)).is_error:
                    assert text_of(result)["error"]["type"] == "OperationTimeoutError"
                again = await use(client, "kv_increment", **arguments)
                assert (again["value"], again["replayed"]) == (1, True)

        run_within(session())
