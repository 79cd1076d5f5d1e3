"""The MCP server over HTTP in a process, and requests message by message, as the SDK's client never makes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support.command_line import clean_environ
from tests.support.forked import ForkedProcess, forked_server
from tests.support.mcp_session import server_arguments
from tests.support.processes import ProcessNode, running, wait_until

ANNOUNCEMENT = "MCP server at "
SESSION_HEADER = "mcp-session-id"
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "raw", "version": "1"},
}
_HEADERS = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


class HttpServer(ProcessNode):
    """``kvworker mcp --transport http`` on a free port."""

    def __init__(self, directory: Path, config: Path, *options: str) -> None:
        arguments = server_arguments(config, "--transport", "http", "--port", "0", *options)
        super().__init__("mcp", arguments, directory=directory, environ=clean_environ())

    def _launch(self) -> ForkedProcess:
        return forked_server(self._command, self._directory, self._environ, self._log_path)

    def ready(self) -> bool:
        wait_until(lambda: "\n" in self.logs() or self.status == "exited", what="the server's start")
        return self.status == "running"

    @property
    def url(self) -> str:
        return self.logs().splitlines()[0].removeprefix(ANNOUNCEMENT)


@contextmanager
def serving(directory: Path, config: Path, *options: str) -> Iterator[HttpServer]:
    with running(HttpServer(directory, config, *options)) as node:
        yield node


@dataclass(frozen=True)
class Answer:
    """The answer to a request. ``message`` is None if the body holds no JSON-RPC message."""

    status: int
    session_id: str | None
    message: Any
    challenge: str | None = None


def post(
    url: str, method: str, params: Mapping[str, Any], headers: Mapping[str, str] | None = None, *, number: int = 1
) -> Answer:
    """Send a request in its own connection."""
    body = json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request("POST", parts.path, body.encode(), {**_HEADERS, **(headers or {})})
        response = connection.getresponse()
        return Answer(
            response.status,
            response.headers[SESSION_HEADER],
            _message(response.read()),
            response.headers["WWW-Authenticate"],
        )


def _message(body: bytes) -> Any:
    """Return the message of a JSON body or of an event stream."""
    for line in body.splitlines():
        text = line.removeprefix(b"data:").strip()
        if text.startswith(b"{"):
            return json.loads(text)
    return None


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def get(url: str, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Return the status of another path of the server, and its JSON."""
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")


def open_session(url: str, headers: Mapping[str, str] | None = None) -> str:
    """Open a session and return its id."""
    answer = post(url, "initialize", INITIALIZE, headers)
    assert answer.session_id is not None, answer
    return answer.session_id


def close_session(url: str, session_id: str) -> int:
    """Close a session and return the answer's status."""
    parts = urlsplit(url)
    with closing(HTTPConnection(parts.netloc, timeout=30)) as connection:
        connection.request("DELETE", parts.path, headers={SESSION_HEADER: session_id})
        return connection.getresponse().status
