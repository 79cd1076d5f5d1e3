"""Where the server listens over HTTP, and which requests it answers there."""

from __future__ import annotations

import ipaddress
import os
import socket
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

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
        """Whether only this machine reaches it.

        Raises:
            ConfigurationError: the host is no address, and no name of one.
        """
        return self._ip.is_loopback

    def security(self) -> TransportSecuritySettings:
        """The SDK's protection from DNS rebinding: a request for another host, or of a page of one, is refused.

        Raises:
            ConfigurationError: it listens on every interface, and no name that it is reached by is allowed.
        """
        if self._ip.is_unspecified and not self.allowed_hosts:
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
        family, address = self._resolved
        try:
            return socket.create_server(address, family=family)
        except OSError as error:
            # Python adds the address to the error's own text.
            reason = os.strerror(error.errno) if error.errno else error.strerror
            raise self._unusable(reason) from error

    def url(self, listener: socket.socket, path: str) -> str:
        """The URL of a path, with the port that the socket has."""
        return f"http://{self._in_url}:{listener.getsockname()[1]}{path}"

    @property
    def _in_url(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @cached_property
    def _resolved(self) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
        # What the system takes the text for, which alone counts: "0" is every interface to it, and "127.1" loopback.
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise self._unusable(getattr(error, "strerror", None) or "it is no name of a host") from error
        # Of a name with several addresses that of IPv4.
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return family, address

    @property
    def _ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return ipaddress.ip_address(self._resolved[1][0])

    def _unusable(self, reason: str | None) -> ConfigurationError:
        return ConfigurationError(f"cannot listen on {self.host!r}, port {self.port}: {reason}")
