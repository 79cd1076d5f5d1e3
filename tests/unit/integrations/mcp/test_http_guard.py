"""Requests that the guard answers itself."""

from __future__ import annotations

import anyio
from starlette.applications import Starlette
from starlette.types import Message

from kvworker.integrations.mcp.http_guard import HttpGuard


def test_a_request_of_an_unknown_version_that_is_cut_off_raises_nothing() -> None:
    guard = HttpGuard(Starlette(), ["2025-06-18"])
    headers = [(b"host", b"localhost"), (b"mcp-protocol-version", b"1"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"", "headers": headers}
    incoming: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return incoming.pop(0)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def request() -> None:
        await guard(scope, receive, send)

    anyio.run(request)
    assert incoming == sent == []
