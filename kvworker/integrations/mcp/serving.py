"""Runs the MCP server on standard input and output or over HTTP, for a persona and its namespaces."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, cast

import anyio
import uvicorn
from mcp.server.stdio import stdio_server
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.types import ASGIApp

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.errors import ConfigurationError
from kvworker.integrations.mcp.address import Address
from kvworker.integrations.mcp.http_guard import HttpGuard
from kvworker.integrations.mcp.scope import SESSION_PREFIX, Scope
from kvworker.integrations.mcp.server import server_by_session, server_in_scope
from kvworker.integrations.mcp.stdin import MessageLines
from kvworker.settings import Settings
from kvworker.tools.manifest import tools_of

_PATH: Final = "/mcp"
#: Seconds that open connections have to finish after the server was told to stop.
_GRACE_SECONDS: Final = 3


@dataclass(frozen=True)
class Audience:
    """The persona and the namespaces of the server's clients.

    ``namespace_prefix`` limits all clients to shared namespaces. ``own_namespaces`` gives every session its own.
    Without either, clients see the whole store.
    """

    persona: str | None = None
    namespace_prefix: str | None = None
    own_namespaces: bool = False

    def tools(self, settings: Settings) -> list[str]:
        """Return the names of the tools that the clients may use.

        Raises:
            ConfigurationError: The persona is missing, not configured or without access to the namespaces, or their
                prefix is invalid.
        """
        persona = self.persona or settings.policies.default_persona
        if settings.policies.personas and not persona:
            raise ConfigurationError("policies are enforced, so the server needs a persona: name it with --persona")
        tools = tools_of(settings, persona)
        if persona:
            self._check_access(persona, settings.policies.personas[persona].namespaces)
        return [tool.name for tool in tools]

    def common_scope(self) -> Scope:
        """Return the scope that all clients share, if sessions do not have their own namespaces.

        Raises:
            ConfigurationError: The prefix is invalid.
        """
        return Scope() if self.namespace_prefix is None else Scope.named(self.namespace_prefix)

    def _check_access(self, persona: str, patterns: Iterable[str] | None) -> None:
        prefix = SESSION_PREFIX if self.own_namespaces else self.common_scope().prefix
        if prefix and patterns is not None and not any(_may_match(pattern, prefix) for pattern in patterns):
            raise ConfigurationError(
                f"persona {persona!r} has no access to namespaces that begin with {prefix!r}: its patterns are compared"
                f" with whole names, so it needs one such as '{prefix}*'"
            )


def serve_stdio(settings: Settings, audience: Audience) -> None:
    """Serve one client on standard input and output, until it closes them or a signal arrives.

    Raises:
        ConfigurationError: The persona or the prefix is invalid.
    """
    tools = audience.tools(settings)
    scope = Scope.of_process() if audience.own_namespaces else audience.common_scope()

    async def serve() -> None:
        """Serve until the input ends or a signal arrives."""
        async with AsyncKeyValueStore(settings, audience.persona) as store, anyio.create_task_group() as tasks:
            tasks.start_soon(_exit_on_signal, store)
            server = server_in_scope(store, tools, scope)
            lines = MessageLines(anyio.wrap_file(sys.stdin.buffer))
            # The SDK only iterates over the lines.
            async with stdio_server(stdin=cast(anyio.AsyncFile[str], lines)) as (reading, writing):
                lines.refuse_through(writing.send)
                await server.run(reading, writing, server.create_initialization_options())
            tasks.cancel_scope.cancel()

    anyio.run(serve)


@dataclass(frozen=True)
class SessionLimits:
    """The sessions of an HTTP server: how many may be open, and after how many seconds without a request one ends."""

    max_sessions: int = 1000
    idle_seconds: float = 1800


def serve_http(
    settings: Settings, audience: Audience, address: Address, limits: SessionLimits, announce: Callable[[str], None]
) -> None:
    """Serve any number of clients over streamable HTTP, until a signal arrives.

    Args:
        settings: The settings of the store.
        audience: The persona and the namespaces of the clients.
        address: The address to listen on.
        limits: The limits of its sessions. A request for one more is refused with status 503.
        announce: Called with the server's URL once it listens.

    Raises:
        ConfigurationError: The persona, the prefix or the address is invalid.
    """
    tools = audience.tools(settings)
    scope = audience.common_scope()
    security = address.security()

    async def serve(listener: socket.socket) -> None:
        """Serve on the socket until the server is stopped."""
        async with AsyncKeyValueStore(settings, audience.persona) as store:
            own = audience.own_namespaces
            server = server_by_session(store, tools) if own else server_in_scope(store, tools, scope)
            app = server.streamable_http_app(
                streamable_http_path=_PATH,
                transport_security=security,
                max_sessions=limits.max_sessions,
                session_idle_timeout=limits.idle_seconds,
            )
            # The SDK passes unknown versions to the handler of 2026-07-28, which would name that one as supported.
            known = (*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS) if own else None
            await _serve_app(HttpGuard(app, known), listener)

    with address.listen() as listener:
        announce(address.url(listener, _PATH))
        anyio.run(serve, listener)


def _may_match(pattern: str, prefix: str) -> bool:
    """True if a persona's pattern can match a name that begins with the prefix."""
    literal, star, _ = pattern.partition("*")
    return literal.startswith(prefix) or (star == "*" and prefix.startswith(literal))


async def _exit_on_signal(store: AsyncKeyValueStore) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for number in received:
            await store.close()
            # A thread of the SDK blocks on standard input, and an ordinary exit would wait for it.
            os._exit(128 + number)


async def _serve_app(app: ASGIApp, listener: socket.socket) -> None:
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_SECONDS)
    # After a graceful stop, uvicorn raises its signal again, which would kill this process before the store is closed.
    # This receiver catches it.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM):
        await uvicorn.Server(config).serve(sockets=[listener])
