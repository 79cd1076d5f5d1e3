"""Checks the host and the port of a broker, so that a mistake is told when the configuration is loaded."""

from __future__ import annotations

from typing import Final

PERCENT_ENCODE: Final = "in a user name or password, write : / ? # @ percent-encoded"


def check_port(port: str) -> None:
    """Check the decimal digits of a port.

    Raises:
        ValueError: No server can have this port.
    """
    if not 0 < int(port) < 65536:
        raise ValueError("its port should be between 1 and 65535")


def check_host(host: str) -> None:
    """Check a host as Python's ``socket`` does before it asks for the address.

    Raises:
        ValueError: No host can have this name.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        raise ValueError(
            "its host name is not valid: the parts between its dots should have 1 to 63 characters each"
        ) from None
