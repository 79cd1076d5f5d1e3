"""Refuses HTTP requests that the SDK would accept or answer wrongly."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import mcp_types as types
from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kvworker.integrations.mcp.stdin import readable_id

_MAX_BODY_BYTES: Final = 4 * 1024 * 1024
_VERSION_HEADER: Final = "mcp-protocol-version"
#: A host and perhaps a port. The SDK compares only the beginning with the allowed hosts, so "localhost:1@evil.example"
#: would pass.
_AUTHORITY: Final = r"(\[[0-9A-Fa-f:.]+\]|[^\s\[\]@:/?#\\]+)(:[0-9]{1,5})?"
_HOST: Final = re.compile(_AUTHORITY)
_ORIGIN: Final = re.compile("https?://" + _AUTHORITY)


class HttpGuard:
    """An ASGI application that checks requests before another one handles them.

    Args:
        app: The application of the SDK.
        versions: The protocol versions of the server. A request with another version is told these.
    """

    def __init__(self, app: ASGIApp, versions: Sequence[str] | None = None) -> None:
        self._app = app
        self._versions = versions
        self._refuse_version = RequestBodyLimitMiddleware(self._answer_version, _MAX_BODY_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Request(scope).headers
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy in front could see another end of the request, and take its rest for the next one.
            refusal = Response("Ambiguous length", HTTPStatus.BAD_REQUEST, {"Connection": "close"})
            await refusal(scope, receive, send)
        elif not all(_HOST.fullmatch(host) for host in headers.getlist("host")):
            await Response("Invalid Host header", HTTPStatus.MISDIRECTED_REQUEST)(scope, receive, send)
        elif not all(_ORIGIN.fullmatch(origin) for origin in headers.getlist("origin")):
            await Response("Invalid Origin header", HTTPStatus.FORBIDDEN)(scope, receive, send)
        elif self._versions is None or headers.get(_VERSION_HEADER, self._versions[0]) in self._versions:
            await self._app(scope, receive, send)
        else:
            await self._refuse_version(scope, receive, send)

    async def _answer_version(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        error = unsupported_version(request.headers[_VERSION_HEADER])
        try:
            request_id = readable_id(await request.body())
        except ClientDisconnect:
            # There is no one to answer. The server would log a traceback.
            return
        answer = types.JSONRPCError(jsonrpc="2.0", id=request_id, error=error)
        body = answer.model_dump_json(by_alias=True, exclude_unset=True)
        await Response(body, HTTPStatus.BAD_REQUEST, media_type="application/json")(scope, receive, send)


def unsupported_version(requested: str) -> types.ErrorData:
    """Return the error for a protocol version without sessions, which makes clients fall back to one that has them."""
    return types.ErrorData(
        code=types.UNSUPPORTED_PROTOCOL_VERSION,
        message="this server gives every session its own namespaces, so it needs a protocol version with sessions",
        data={"supported": list(HANDSHAKE_PROTOCOL_VERSIONS), "requested": requested},
    )
