"""Refuses requests that come from other sites, and tells browsers to trust nothing but our own files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A host and perhaps a port, and nothing else.
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s\[\]@:/?#\\]+)(?::[0-9]{1,5})?")
#: The values of ``Sec-Fetch-Site`` that our forms send. Old browsers send none.
_SAME_ORIGIN: Final = frozenset({"same-origin", None})

#: The routes of probes, which tell nothing but whether the dashboard is alive and ready.
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers would hide the origin of our own forms from us.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """An ASGI application that checks requests before another one handles them.

    Args:
        app: The application that handles them.
        host_names: The host names that a request may use. Others are those of DNS rebinding.
    """

    def __init__(self, app: ASGIApp, host_names: Iterable[str]) -> None:
        self._app = app
        self._host_names = frozenset(name.lower() for name in host_names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "websocket":
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            """Add the headers to the beginning of the answer."""
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> PlainTextResponse | None:
        headers = request.headers
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy in front could see another end of the request, and take its rest for the next one.
            return PlainTextResponse("Ambiguous length", HTTPStatus.BAD_REQUEST, {"Connection": "close"})
        if request.scope["path"] in OPEN_PATHS:
            # A probe may use any name, such as the address of a pod.
            return None
        hosts = headers.getlist("host")
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None or found[1].lower() not in self._host_names:
            return PlainTextResponse(
                "Invalid Host header. Name the hosts that clients may use with --allowed-host.",
                HTTPStatus.MISDIRECTED_REQUEST,
            )
        if request.method not in {"GET", "HEAD"} and not _is_same_origin(request, hosts[0]):
            return PlainTextResponse("A form of another site", HTTPStatus.FORBIDDEN)
        return None


def _is_same_origin(request: Request, host: str) -> bool:
    """Tell whether a form is one of ours. A proxy may have changed the scheme, so only the host is compared."""
    origins = request.headers.getlist("origin")
    named = all(origin.lower() in {f"http://{host}".lower(), f"https://{host}".lower()} for origin in origins)
    return named and request.headers.get("sec-fetch-site") in _SAME_ORIGIN
