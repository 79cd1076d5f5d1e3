"""Counts, logs and slows down failed attempts. A valid token always passes, even from an address that failed."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

logger = logging.getLogger(__name__)

#: Failures of an address that are answered at once.
_FREE: Final = 5
_FIRST_DELAY_SECONDS: Final = 0.1
_MAX_DELAY_SECONDS: Final = 5.0
#: An address without a failure for this long is forgotten.
_MEMORY_SECONDS: Final = 60.0
_MAX_ADDRESSES: Final = 4096
#: Answers that may be held back at the same time, from one address and from all.
_MAX_HELD_OF_ADDRESS: Final = 10
_MAX_HELD: Final = 500
#: The owner of one IPv6 address usually owns all addresses with the same first 64 bits.
_IPV6_NETWORK_BITS: Final = 64


@dataclass
class _Client:
    failures: int = 0
    held: int = 0
    failed_at: float = 0.0


class FailedAttempts:
    """The failed attempts to open a server, by client address. For one event loop.

    The answer to a failure is held back, longer after each one, so that clients with a wrong token cost little. It need
    not stop guesses: a token has 256 random bits.

    Args:
        server: The server that the clients try to open, for the log.
        clock: Returns seconds.

    Attributes:
        total: The number of failures since the start.
    """

    def __init__(self, server: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = 0
        self._server = server
        self._clock = clock
        self._clients: OrderedDict[str, _Client] = OrderedDict()
        self._held = 0

    async def slow_down(self, address: str | None) -> bool:
        """Count a failure, and wait before it is answered.

        Args:
            address: The client's IP address, as the server sees it; None if it has none.

        Returns:
            False without a wait if too many answers are held back already. Answer with status 429 then, otherwise with
            401.
        """
        name = _network_of(address)
        client = self._count(name)
        # After 1, 2, 4, 8, … failures, so that a client cannot fill the log.
        if client.failures & (client.failures - 1) == 0:
            logger.warning(
                "%s: access denied to a client at %s, which has failed %d times; %d failures in all",
                self._server,
                name,
                client.failures,
                self.total,
            )
        delay_seconds = _delay_after(client.failures)
        if delay_seconds == 0:
            return True
        if client.held >= _MAX_HELD_OF_ADDRESS or self._held >= _MAX_HELD:
            return False
        client.held += 1
        self._held += 1
        try:
            await asyncio.sleep(delay_seconds)
        finally:
            client.held -= 1
            self._held -= 1
        return True

    def _count(self, name: str) -> _Client:
        now = self._clock()
        self.total += 1
        client = self._clients.pop(name, None) or _Client()
        if now - client.failed_at > _MEMORY_SECONDS:
            client.failures = 0
        client.failures += 1
        client.failed_at = now
        # The one that failed last is at the end.
        self._clients[name] = client
        if len(self._clients) > _MAX_ADDRESSES:
            self._clients.popitem(last=False)
        return client


def _delay_after(failures: int) -> float:
    if failures <= _FREE:
        return 0
    return min(_MAX_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0 ** min(failures - _FREE - 1, 10))


def _network_of(address: str | None) -> str:
    """Return the part of an address that one client cannot easily change."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        # A Unix socket's client has no address, and a trusted proxy may pass on any text.
        return "an unknown address"
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), _IPV6_NETWORK_BITS), strict=False))
