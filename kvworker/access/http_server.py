"""Runs an HTTP server until a signal arrives. A client that only holds its connection open is disconnected."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import Any, Final

import anyio
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from kvworker.systemd import Systemd

#: Seconds that open connections have to finish after the server was told to stop.
_GRACE_SECONDS: Final = 3
#: The pause between two reports to systemd, whose watchdog ends a server that is silent for longer than it allows.
_REPORT_SECONDS: Final = 2
#: How long a client may take to send the head of a request, its body, and to read what is ready for it.
HEAD_SECONDS: float = 10
BODY_SECONDS: float = 30
READ_SECONDS: float = 60


async def serve(
    app: ASGIApp, listener: socket.socket, *, most_connections: int | None = None, trusted_proxies: tuple[str, ...] = ()
) -> None:
    """Serve an application until a signal arrives. systemd is told that the server is ready, and that its loop turns.

    Args:
        app: The application.
        listener: The socket on which to listen.
        most_connections: A request on a further connection is answered with status 503.
        trusted_proxies: The addresses of proxies whose ``X-Forwarded-For`` counts.
    """
    # After a graceful stop, uvicorn raises its signal again, which would kill this process before everything is closed.
    # This receiver catches it.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM):
        await make_server(app, most_connections, trusted_proxies).serve(sockets=[listener])


def make_server(
    app: ASGIApp, most_connections: int | None = None, trusted_proxies: tuple[str, ...] = ()
) -> uvicorn.Server:
    """Make the server; see ``serve``."""
    systemd = Systemd(os.environ)

    async def report() -> None:
        """Tell systemd how the server is. That it is ready counts once."""
        systemd.report("READY=1", "WATCHDOG=1")

    config = uvicorn.Config(
        app,
        http=ImpatientProtocol,
        # With a library for WebSockets, each attempt would end in an internal error.
        ws="none",
        log_config=None,
        # Below this are lines that any client can cause.
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        callback_notify=report,
        timeout_notify=_REPORT_SECONDS,
        limit_concurrency=most_connections,
        # By default uvicorn trusts any local client's statement of its address.
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=list(trusted_proxies),
    )
    return uvicorn.Server(config)


class ImpatientProtocol(H11Protocol):
    """A connection that ends if its client owes something for too long. uvicorn would wait forever.

    Single bytes extend no deadline. A client that waits for an answer owes nothing.
    """

    _allowed_seconds: float | None = None
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._allow(None)

    def data_received(self, data: bytes) -> None:
        """Handle a part of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._watch()

    def _watch(self) -> None:
        cycle: Any = self.cycle
        if self.flow.write_paused:
            self._allow(READ_SECONDS)
        elif cycle is None or cycle.response_complete:
            self._allow(HEAD_SECONDS)
        else:
            self._allow(BODY_SECONDS if cycle.more_body else None)

    def _allow(self, seconds: float | None) -> None:
        """Let the client take this long. A running deadline of the same length is kept."""
        if seconds == self._allowed_seconds:
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._allowed_seconds = seconds
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
