"""Runs the MCP server on standard input and output or over HTTP, for a persona and its namespaces."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast

import anyio
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from starlette.routing import Route
from starlette.types import ASGIApp

from kvworker.access import Address, http_server
from kvworker.access.metrics import serving_failures
from kvworker.client.aio import AsyncKeyValueStore
from kvworker.integrations.mcp.admission import Admission
from kvworker.integrations.mcp.audience import Audience, Callers
from kvworker.integrations.mcp.health import Health
from kvworker.integrations.mcp.http_guard import HttpGuard
from kvworker.integrations.mcp.scope import Scope
from kvworker.integrations.mcp.server import Caller, make_server
from kvworker.integrations.mcp.stdin import MessageLines
from kvworker.messaging.queue_readiness import QueueReadiness
from kvworker.settings import Settings

_PATH: Final = "/mcp"


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
            caller = Caller(store, scope, tools)
            server = make_server(lambda _context: caller)
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
    settings: Settings,
    audience: Audience,
    address: Address,
    admission: Admission,
    limits: SessionLimits,
    announce: Callable[[str], None],
) -> None:
    """Serve any number of clients over streamable HTTP, until a signal arrives.

    Args:
        settings: The settings of the store.
        audience: The persona and the namespaces of clients whose tokens do not say otherwise.
        address: The address to listen on.
        admission: The tokens that open the server.
        limits: The limits of its sessions. A request for one more is refused with status 503.
        announce: Called with the server's URL once it listens.

    Raises:
        ConfigurationError: A persona, a prefix, the file of tokens or an address is invalid.
    """
    audience.common_scope()
    admission.check(settings, audience)
    security = _security(address)

    async def serve(listener: socket.socket) -> None:
        """Serve on the socket until the server is stopped."""
        async with AsyncKeyValueStore(settings, audience.persona) as store:
            callers = Callers(settings, store, audience)
            app = _http_app(callers, limits, security, _open_routes(settings, admission))
            # The SDK passes unknown versions to the handler of 2026-07-28, which would name that one as supported.
            known = (*HANDSHAKE_PROTOCOL_VERSIONS, *MODERN_PROTOCOL_VERSIONS) if audience.own_namespaces else None
            guarded = HttpGuard(admission.guarded(app, callers), known)
            await http_server.serve(guarded, listener, trusted_proxies=admission.trusted_proxies)

    with address.listen() as listener, serving_failures(admission.metrics_listen, "mcp", admission.failures):
        announce(address.url(listener, _PATH))
        anyio.run(serve, listener)


def _security(address: Address) -> TransportSecuritySettings:
    """Return the SDK's settings against DNS rebinding. They refuse requests with another host or origin."""
    hosts = [host for name in address.host_names() for host in (name, f"{name}:*")]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=hosts,
        allowed_origins=[f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts],
    )


def _open_routes(settings: Settings, admission: Admission) -> list[Route]:
    """Return the routes that need no token."""
    return [*Health(QueueReadiness(settings, admission.check_tokens)).routes(), *admission.routes()]


def _http_app(
    callers: Callers, limits: SessionLimits, security: TransportSecuritySettings, open_routes: list[Route]
) -> ASGIApp:
    server = make_server(callers.caller_of, needs_sessions=callers.audience.own_namespaces)
    return server.streamable_http_app(
        streamable_http_path=_PATH,
        transport_security=security,
        max_sessions=limits.max_sessions,
        session_idle_timeout=limits.idle_seconds,
        custom_starlette_routes=open_routes,
    )


async def _exit_on_signal(store: AsyncKeyValueStore) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for number in received:
            await store.close()
            # A thread of the SDK blocks on standard input, and an ordinary exit would wait for it.
            os._exit(128 + number)
