"""Lets only requests with a valid bearer token through to the server (RFC 6750)."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import TokenVerifier
from starlette.authentication import AuthCredentials
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from kvworker.access import FailedAttempts
from kvworker.errors import ConfigurationError
from kvworker.integrations.mcp.key_set import CannotVerifyError
from kvworker.integrations.mcp.verifiers import ClientToken, ForbiddenError

logger = logging.getLogger(__name__)

_CREDENTIALS: Final = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)
#: The interval at which the token of an unfinished request is verified again.
_VERIFY_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 5
#: The shortest time between two log lines about the same problem.
_COMPLAIN_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Door:
    """The rules for admission to a server.

    Attributes:
        verifier: Verifies tokens.
        check: Checks that a valid token's holder can be served, or raises a ``ConfigurationError``.
        open_paths: The paths that need no token.
        failures: Counts the failed attempts, and slows them down.
        metadata_url: Where clients learn which authorization server to ask for a token, if there is one.
    """

    verifier: TokenVerifier
    check: Callable[[ClientToken], None]
    open_paths: frozenset[str]
    failures: FailedAttempts
    metadata_url: str | None = None


class _Refusal(Exception):  # noqa: N818 - it is an answer
    """The answer to a request that is not let through. ``error`` is one of RFC 6750's codes, or empty."""

    def __init__(
        self, status: HTTPStatus, error: str = "", description: str = "", scopes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(status)
        self.status = status
        self.error = error
        self.description = description
        self.scopes = scopes


class BearerGuard:
    """An ASGI application that hands requests with a valid token to another one, with the token's rights.

    Each request of a session is verified. A request whose token is revoked or expires while it is being answered, such
    as an open stream, is ended.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door
        self._problem = ""
        self._complained_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self._door.open_paths):
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Nothing else is served, and a WebSocket would need its own check.
            return
        try:
            text = _token_of(scope)
            token = await self._admit(text, scope)
        except _Refusal as refusal:
            await self._answer(refusal)(scope, receive, send)
            return
        scope["user"], scope["auth"] = AuthenticatedUser(token), AuthCredentials(token.scopes)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._end_when_invalid, text, tasks.cancel_scope)
            await self._app(scope, receive, send)
            tasks.cancel_scope.cancel()

    async def _admit(self, text: str, scope: Scope) -> ClientToken:
        token = await self._verify(text)
        if token is not None:
            return token
        client = scope.get("client")
        if await self._door.failures.slow_down(client[0] if client else None):
            raise _Refusal(HTTPStatus.UNAUTHORIZED, "invalid_token", "the token is unknown, revoked or expired")
        raise _Refusal(HTTPStatus.TOO_MANY_REQUESTS)

    async def _verify(self, text: str) -> ClientToken | None:
        try:
            token = await self._door.verifier.verify_token(text)
        except ForbiddenError as error:
            raise _Refusal(HTTPStatus.FORBIDDEN, "insufficient_scope", str(error), error.scopes) from None
        except (ConfigurationError, CannotVerifyError) as error:
            self._complain(f"the MCP server cannot verify tokens: {error}")
            raise _Refusal(HTTPStatus.SERVICE_UNAVAILABLE) from None
        if not isinstance(token, ClientToken):
            return None
        try:
            self._door.check(token)
        except ConfigurationError as error:
            self._complain(f"the MCP server cannot serve the token of {token.client_id!r}: {error}")
            raise _Refusal(HTTPStatus.FORBIDDEN, "insufficient_scope", "the token opens nothing here") from None
        return token

    def _complain(self, problem: str) -> None:
        """Log a problem, but not with each request."""
        now = time.monotonic()
        if problem != self._problem or now - self._complained_at > _COMPLAIN_SECONDS:
            self._problem, self._complained_at = problem, now
            logger.error(problem)

    async def _end_when_invalid(self, text: str, request: anyio.CancelScope) -> None:
        is_valid = True
        while is_valid:
            await anyio.sleep(_VERIFY_SECONDS)
            try:
                is_valid = await self._verify(text) is not None
            except _Refusal as refusal:
                is_valid = refusal.status == HTTPStatus.SERVICE_UNAVAILABLE
        request.cancel()

    def _answer(self, refusal: _Refusal) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        headers = {"Cache-Control": "no-store"}
        if refusal.status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
            headers["Retry-After"] = str(_RETRY_SECONDS)
        else:
            headers["WWW-Authenticate"] = self._challenge(refusal)
        if refusal.status == HTTPStatus.TOO_MANY_REQUESTS:
            # The next attempt costs its client a new connection.
            headers["Connection"] = "close"
        body = {"error": refusal.error or refusal.status.phrase, "error_description": refusal.description}
        return Response(json.dumps(body), refusal.status, headers, media_type="application/json")

    def _challenge(self, refusal: _Refusal) -> str:
        values = {
            "realm": "kvworker",
            "error": refusal.error,
            "error_description": refusal.description,
            "scope": " ".join(refusal.scopes),
            "resource_metadata": self._door.metadata_url or "",
        }
        return "Bearer " + ", ".join(f'{name}="{value}"' for name, value in values.items() if value)


def _token_of(scope: Scope) -> str:
    """Return the token of a request.

    Raises:
        _Refusal: There is none, or more than one.
    """
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if not given:
        raise _Refusal(HTTPStatus.UNAUTHORIZED)
    if len(given) > 1:
        # Another program on the way may have read the other one.
        raise _Refusal(HTTPStatus.BAD_REQUEST, "invalid_request", "send one Authorization header")
    found = _CREDENTIALS.fullmatch(given[0].strip())
    if found is None:
        raise _Refusal(HTTPStatus.UNAUTHORIZED, "invalid_request", "send Authorization: Bearer TOKEN")
    return found[1].decode("ascii")
