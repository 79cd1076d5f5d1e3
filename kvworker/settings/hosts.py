"""Checks hosts and ports, of servers and of what kvworker itself listens on, before they are used."""

from __future__ import annotations

import re
from typing import Final

#: Where to listen if only ports are given.
LOOPBACK: Final = "127.0.0.1"
_LISTEN: Final = re.compile(
    r"(?:(?P<host>[^\s:\[\]]+|\[[^\s\[\]]+\]):)?(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?"
)

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


def listen_addresses(text: str) -> tuple[str, range]:
    """Parse where to listen: ``HOST:PORT``, ``PORT`` for this machine alone, or with a range ``FIRST-LAST`` of ports.

    Args:
        text: Such as ``127.0.0.1:9820``, ``[::1]:9820`` or ``9820-9827``. The caller uses the first free port.

    Returns:
        The host, and the ports.

    Raises:
        ValueError: It is none of these.
    """
    match = _LISTEN.fullmatch(text.strip())
    if match is None:
        raise ValueError("it should be HOST:PORT, PORT or HOST:FIRST-LAST, such as 127.0.0.1:9820")
    first, last = match["first"], match["last"] or match["first"]
    check_port(first)
    check_port(last)
    if int(last) < int(first):
        raise ValueError("its last port should not be below its first one")
    host = (match["host"] or LOOPBACK).strip("[]")
    check_host(host)
    return host, range(int(first), int(last) + 1)
