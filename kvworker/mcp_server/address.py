"""Where the server listens over HTTP, and which requests it answers there."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from typing import Final

from mcp.server.transport_security import TransportSecuritySettings

from kvworker.errors import ConfigurationError

_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Address:
    """A host and a port; port 0 is any free one. ``allowed_hosts`` are further names that clients reach it by."""

    host: str
    port: int
    allowed_hosts: tuple[str, ...] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host == "localhost" or self._is("is_loopback")

    def security(self) -> TransportSecuritySettings:
        """The SDK's protection from DNS rebinding: a request for another host, or of a page of one, is refused.

        Raises:
            ConfigurationError: it listens on every interface, and no name that it is reached by is allowed.
        """
        if self._is("is_unspecified") and not self.allowed_hosts:
            raise ConfigurationError(
                f"{self.host} is every interface: say by which names clients reach it, with --allowed-host"
            )
        names = dict.fromkeys([*_LOOPBACK_NAMES, self._in_url, *self.allowed_hosts])
        hosts = [host for name in names for host in (name, f"{name}:*")]
        return TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=hosts,
            allowed_origins=[f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts],
        )

    def listen(self) -> socket.socket:
        """A socket that takes connections.

        Raises:
            ConfigurationError: the address cannot be had.
        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            # Python adds the address to the error's own text.
            reason = os.strerror(error.errno) if error.errno else error.strerror
            raise ConfigurationError(f"cannot listen on {self.host}, port {self.port}: {reason}") from error

    def url(self, listener: socket.socket, path: str) -> str:
        """The URL of a path, with the port that the socket has."""
        return f"http://{self._in_url}:{listener.getsockname()[1]}{path}"

    @property
    def _in_url(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def _is(self, kind: str) -> bool:
        try:
            return bool(getattr(ipaddress.ip_address(self.host), kind))
        except ValueError:
            return False
