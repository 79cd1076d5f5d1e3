"""Reports to systemd, by the protocol of sd_notify(3). Without systemd, and in other supervisors, it does nothing.

It is ours because the protocol is one datagram, and the libraries for it need a compiler or are no longer kept.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Systemd:
    """The systemd that started this process as a service with ``Type=notify``, if it did.

    Args:
        environ: The environment variables.

    Attributes:
        watchdog_seconds: The longest time that the process may be silent (``WatchdogSec``); None if that is unlimited.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # Linux writes the first byte of a socket without a file as "@".
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        microseconds = environ.get("WATCHDOG_USEC", "")
        is_watched = microseconds.isdecimal() and environ.get("WATCHDOG_PID") in {None, "", str(os.getpid())}
        self.watchdog_seconds = int(microseconds) / 1e6 if self._address and is_watched else None

    def report(self, *assignments: str) -> None:
        """Send assignments, such as ``READY=1``. A report that cannot be sent at once is lost."""
        if self._address and assignments:
            message = "\n".join(assignments).encode(errors="replace")
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(0)
                sender.sendto(message, self._address)
