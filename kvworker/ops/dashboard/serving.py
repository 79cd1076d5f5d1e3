"""Runs the dashboard until a signal arrives."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Final

import anyio

from kvworker.access import Address, TokenFile
from kvworker.access.http_server import serve
from kvworker.access.metrics import serving_failures
from kvworker.messaging.queue_readiness import QueueReadiness
from kvworker.ops.dashboard.app import make_app
from kvworker.ops.dashboard.door import Door
from kvworker.ops.dashboard.guard import Guard
from kvworker.ops.dashboard.history import History
from kvworker.ops.dashboard.pages import Pages
from kvworker.ops.dashboard.stores import Stores
from kvworker.ops.dashboard.viewers import Viewers
from kvworker.ops.overview.collector import OverviewCollector
from kvworker.settings import Settings

#: A browser keeps up to six. A request on a further connection is answered with status 503.
_MOST_CONNECTIONS: Final = 256


@dataclass(frozen=True)
class Access:
    """The rights of the dashboard's viewers.

    Attributes:
        tokens: The file of the tokens that open it. Without it, the address that is announced holds a key that does.
        persona: The persona of those whose token names none.
        allows_writes: True if it has forms that change something.
        metrics_listen: Where to serve the number of failed attempts for Prometheus; None for nowhere.
    """

    tokens: TokenFile | None = None
    persona: str | None = None
    allows_writes: bool = False
    metrics_listen: str | None = None


def serve_dashboard(settings: Settings, address: Address, access: Access, announce: Callable[[str], None]) -> None:
    """Serve the dashboard until a signal arrives.

    Args:
        settings: The settings of the store.
        address: The address to listen on.
        access: The rights of its viewers.
        announce: Called with its URL once it listens.

    Raises:
        ConfigurationError: A persona, the file of tokens or the address is wrong.
    """
    viewers = Viewers(settings, access.persona, access.tokens)
    viewers.check()
    host_names = address.host_names()
    with address.listen() as listener, closing(OverviewCollector(settings)) as collector:
        history, stores = History(collector), Stores(settings)
        pages = Pages(history, stores, access.allows_writes)
        # A browser sends a cookie to the servers on all ports of a host.
        door = Door(pages, viewers, f"kvworker_{listener.getsockname()[1]}")
        readiness = QueueReadiness(settings, lambda: access.tokens and access.tokens.grants())
        app = Guard(make_app(pages, door, readiness), host_names)
        history.start()
        try:
            with serving_failures(access.metrics_listen, "dashboard", door.failures):
                announce(address.url(listener, f"/sign-in?key={viewers.key}" if viewers.key else "/"))
                anyio.run(partial(serve, app, listener, most_connections=_MOST_CONNECTIONS))
        finally:
            history.stop()
            stores.close()
