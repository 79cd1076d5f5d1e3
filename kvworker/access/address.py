"""The address on which a server listens over HTTP, and the host names that requests to it may use."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from kvworker.errors import ConfigurationError

_LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Address:
    """A host and a port.

    Attributes:
        host: The host.
        port: The port; 0 picks a free one.
        allowed_hosts: Further host names that clients may use.
        any_port: Pick a free port if the port is in use.
    """

    host: str
    port: int
    allowed_hosts: tuple[str, ...] = ()
    any_port: bool = False

    @property
    def is_loopback(self) -> bool:
        """True if only this machine can reach the address.

        Raises:
            ConfigurationError: The host cannot be resolved.
        """
        return self._ip.is_loopback

    def host_names(self) -> tuple[str, ...]:
        """Return the host names that requests may use, without a port. Any other name may be DNS rebinding.

        Raises:
            ConfigurationError: The address covers every interface, and ``allowed_hosts`` is empty.
        """
        if self._ip.is_unspecified and not self.allowed_hosts:
            raise ConfigurationError(
                f"{self.host} covers every interface: name the hosts that clients may use with --allowed-host"
            )
        return tuple(dict.fromkeys([*_LOOPBACK_NAMES, self._in_url, *self.allowed_hosts]))

    def listen(self) -> socket.socket:
        """Return a listening socket.

        Raises:
            ConfigurationError: The system refuses the address, for example because it is in use.
        """
        family, address = self._resolved
        try:
            return socket.create_server(address, family=family)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and self.any_port:
                return replace(self, port=0, any_port=False).listen()
            # Python adds the address to the error's own text.
            reason = os.strerror(error.errno) if error.errno else error.strerror
            raise self._unusable(reason) from error

    def url(self, listener: socket.socket, path: str) -> str:
        """Return the URL of a path, with the port on which the socket listens."""
        return f"http://{self._in_url}:{listener.getsockname()[1]}{path}"

    @property
    def _in_url(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @cached_property
    def _resolved(self) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
        # The system's interpretation counts: it reads "0" as every interface and "127.1" as loopback.
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise self._unusable(getattr(error, "strerror", None) or "the host cannot be resolved") from error
        # Prefers IPv4 if a name has several addresses.
        family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        return family, address

    @property
    def _ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        return ipaddress.ip_address(self._resolved[1][0])

    def _unusable(self, reason: str | None) -> ConfigurationError:
        return ConfigurationError(f"cannot listen on {self.host!r}, port {self.port}: {reason}")
