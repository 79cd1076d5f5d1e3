"""MCP over HTTP message by message, for situations that the SDK's client never makes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

SESSION_HEADER = "mcp-session-id"
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "raw", "version": "1"},
}
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@dataclass(frozen=True)
class Answer:
    """The answer to a request. ``message`` is None if the body holds no JSON-RPC message."""

    status: int
    session_id: str | None
    message: Any


def post(
    url: str, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None, *, number: int = 1
) -> Answer:
    """Send a request in its own connection."""
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request("POST", parts.path, body.encode(), {**_HEADERS, **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, response.headers[SESSION_HEADER], _message(response.read()))


def _message(body: bytes) -> Any:
    """Return the message of a JSON body or of an event stream."""
    for line in body.splitlines():
        text = line.removeprefix(b"data:").strip()
        if text.startswith(b"{"):
            return json.loads(text)
    return None


def open_session(url: str) -> str:
    """Open a session and return its id."""
    answer = post(url, "initialize", INITIALIZE)
    assert answer.session_id is not None, answer
    return answer.session_id


def close_session(url: str, session_id: str) -> int:
    """Close a session and return the answer's status."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request("DELETE", parts.path, headers={SESSION_HEADER: session_id})
        return connection.getresponse().status
