"""The server on its transports: what is served to whom, where it listens, how it ends."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio
import uvicorn
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from kvworker.aio import AsyncKeyValueStore
from kvworker.errors import ConfigurationError
from kvworker.manifest import tools_of
from kvworker.mcp_server.scope import Scope
from kvworker.mcp_server.server import server_by_session, server_in_scope
from kvworker.settings import Settings
from kvworker.tools import Tool

_PATH: Final = "/mcp"
_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
#: Seconds that running calls have to end once the server is told to stop; streams without a call are cut then.
_GRACE_SECONDS: Final = 3


@dataclass(frozen=True)
class Address:
    """Where the HTTP server listens. Requests for a host that is not in ``allowed_hosts`` are refused."""

    host: str
    port: int
    allowed_hosts: tuple[str, ...] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host == "localhost" or _is(self.host, "is_loopback")

    def security(self) -> TransportSecuritySettings:
        """The SDK's protection from DNS rebinding, for these hosts.

        Raises:
            ConfigurationError: it listens on every interface, and no host is allowed by name.
        """
        if _is(self.host, "is_unspecified") and not self.allowed_hosts:
            raise ConfigurationError(
                f"{self.host} is every interface: name the hosts that clients may ask for, with --allowed-host"
            )
        names = dict.fromkeys([*_LOOPBACK_NAMES, _in_url(self.host), *self.allowed_hosts])
        hosts = [host for name in names for host in (name, f"{name}:*")]
        return TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=hosts,
            allowed_origins=[f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts],
        )


@dataclass(frozen=True)
class Audience:
    """Whom the server serves: as which persona, and with which namespaces."""

    persona: str | None = None
    namespace_prefix: str | None = None
    own_namespaces: bool = False


def serve_stdio(settings: Settings, audience: Audience) -> None:
    """Serve the one client on standard input and output, until it closes them or a signal comes.

    Raises:
        ConfigurationError: the persona or the prefix cannot be used.
    """
    tools = _tools(settings, audience)
    scope = Scope.of_process() if audience.own_namespaces else _common_scope(audience)

    async def serve() -> None:
        async with AsyncKeyValueStore(settings) as store, anyio.create_task_group() as tasks:
            tasks.start_soon(_exit_on_signal, store)
            server = server_in_scope(store.as_persona(audience.persona), tools, scope)
            async with stdio_server() as (reading, writing):
                await server.run(reading, writing, server.create_initialization_options())
            tasks.cancel_scope.cancel()

    anyio.run(serve)


def serve_http(settings: Settings, audience: Audience, address: Address, announce: Callable[[str], None]) -> None:
    """Serve any number of clients over streamable HTTP, until a signal comes. ``announce`` is told the URL.

    Raises:
        ConfigurationError: the persona, the prefix or the address cannot be used.
    """
    tools = _tools(settings, audience)
    scope = _common_scope(audience)
    security = address.security()

    async def serve() -> None:
        async with AsyncKeyValueStore(settings) as store:
            view = store.as_persona(audience.persona)
            own = audience.own_namespaces
            server = server_by_session(view, tools) if own else server_in_scope(view, tools, scope)
            listener = _listen(address)
            announce(f"http://{_in_url(address.host)}:{listener.getsockname()[1]}{_PATH}")
            await _serve_app(
                server.streamable_http_app(streamable_http_path=_PATH, transport_security=security), listener
            )

    anyio.run(serve)


def _tools(settings: Settings, audience: Audience) -> tuple[Tool, ...]:
    if settings.policies.personas and not (audience.persona or settings.policies.default_persona):
        raise ConfigurationError("policies are enforced, so the server needs a persona: name one with --persona")
    return tools_of(settings, audience.persona)


def _common_scope(audience: Audience) -> Scope:
    return Scope() if audience.namespace_prefix is None else Scope.named(audience.namespace_prefix)


async def _exit_on_signal(store: AsyncKeyValueStore) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async for number in received:
            await store.close()
            # At once: a thread of the SDK's waits for standard input, and an ordinary exit would wait for it.
            os._exit(128 + number)


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {address.host}, port {address.port}: {error.strerror}") from error


async def _serve_app(app: ASGIApp, listener: socket.socket) -> None:
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_SECONDS)
    # When it has stopped, uvicorn raises the signal that stopped it once more, which would end this process
    # before the store is closed. Received here, it does not.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM):
        await uvicorn.Server(config).serve(sockets=[listener])


def _is(host: str, kind: str) -> bool:
    try:
        return bool(getattr(ipaddress.ip_address(host), kind))
    except ValueError:
        return False


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
