"""The order in which the hosts of a URL are tried."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

#: For this long, a host that failed comes last. After that, a new connection may take ``connect_timeout`` longer, if
#: the host still does not answer.
_AVOIDED_SECONDS: Final = 60.0

Host: TypeAlias = tuple[str, str]


class HostOrder:
    """Puts the hosts that failed a moment ago last. Otherwise libpq would wait for them at every new connection.

    A frozen host accepts connections, because its kernel does, and then stays silent until ``connect_timeout``.
    """

    def __init__(self) -> None:
        self._failed_at: dict[Host, float] = {}

    def ordered(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return libpq's connection parameters with ``host`` and ``port`` in the order to try them."""
        hosts = _hosts_of(arguments)
        if len(hosts) < 2:
            return dict(arguments)
        now = time.monotonic()
        # Sorting keeps the order of the URL among equals.
        hosts.sort(key=lambda host: now - self._failed_at.get(host, -_AVOIDED_SECONDS) < _AVOIDED_SECONDS)
        return {**arguments, "host": ",".join(host for host, _ in hosts), "port": ",".join(port for _, port in hosts)}

    def record_connected(self, arguments: Mapping[str, Any], connected: Host) -> None:
        """Record that a host accepted a connection, and that those before it in the arguments did not."""
        for host in _hosts_of(arguments):
            if _is_same(host, connected):
                self._failed_at.pop(host, None)
                return
            self._failed_at[host] = time.monotonic()

    def record_silent(self, arguments: Mapping[str, Any], silent: Host) -> None:
        """Record that a host did not answer on a connection."""
        for host in _hosts_of(arguments):
            if _is_same(host, silent):
                self._failed_at[host] = time.monotonic()


def _is_same(host: Host, connected: Host) -> bool:
    # A port that the URL leaves out is libpq's default, which the connection knows.
    return host[0] == connected[0] and host[1] in ("", connected[1])


def _hosts_of(arguments: Mapping[str, Any]) -> list[Host]:
    """Return the hosts with their ports; none if libpq finds them in another way, or in its own order."""
    if "hostaddr" in arguments or arguments.get("load_balance_hosts", "disable") != "disable":
        return []
    hosts, ports = (str(arguments.get(name, "")).split(",") for name in ("host", "port"))
    if len(ports) == 1:
        ports *= len(hosts)
    return list(zip(hosts, ports, strict=True)) if len(hosts) == len(ports) else []
