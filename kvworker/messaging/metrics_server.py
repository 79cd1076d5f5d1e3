"""An HTTP server for metrics. No client can use up the process that it watches.

The server of prometheus-client starts a thread for each connection, however many there are, and waits forever for a
request. A worker would run out of memory or file descriptors.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication

from kvworker.errors import ConfigurationError, extra_needed
from kvworker.settings.hosts import listen_addresses

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

logger = logging.getLogger(__name__)

#: A connection beyond these is closed at once. A Prometheus server has one.
_MOST_CONNECTIONS: Final = 16
#: How long a connection may last. The exporter answers within some seconds.
_MOST_SECONDS: Final = 20.0


class MetricsServer:
    """Serves metrics in a thread until it is closed.

    Args:
        app: The application of prometheus-client.
        host: The host to listen on.
        ports: The ports of which to use the first free one.
        most_seconds: How long a connection may last.

    Raises:
        OSError: It cannot listen there.
    """

    def __init__(
        self, app: WSGIApplication, host: str, ports: Iterable[int], most_seconds: float = _MOST_SECONDS
    ) -> None:
        self._server = _listening(host, ports, most_seconds)
        self._server.set_app(app)
        self._thread = Thread(target=self._server.serve_forever, name="kvworker-metrics", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The URL of the metrics."""
        host, port = map(str, self._server.server_address[:2])
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def close_in_child(self) -> None:
        """Leave the port to the process that this one was forked from."""
        self._server.socket.close()


@contextmanager
def serving_metrics(where: str, user: str, make_registry: Callable[[], CollectorRegistry]) -> Iterator[str]:
    """Serve a registry until the context ends, and yield the URL of its metrics.

    Args:
        where: Address and port, as ``listen_addresses`` in ``kvworker.settings.hosts`` describes.
        user: What needs the extra, for the error if it is missing.
        make_registry: Makes the registry. It may import the extra.

    Raises:
        ConfigurationError: It cannot listen there, or the extra ``metrics`` is missing.
        ValueError: The address is invalid.
    """
    try:
        from prometheus_client import make_wsgi_app  # noqa: PLC0415 - an extra

        app = make_wsgi_app(make_registry())
    except ModuleNotFoundError:
        raise ConfigurationError(extra_needed(user, "metrics")) from None
    host, ports = listen_addresses(where)
    try:
        server = MetricsServer(app, host, ports)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {where}: {error.strerror or error}") from None
    with closing(server):
        yield server.url


def _listening(host: str, ports: Iterable[int], most_seconds: float) -> _Server:
    problem = OSError("there is no port")
    for port in ports:
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            return _Server(family, (str(address[0]), port), most_seconds)
        except OSError as error:
            problem = error
    raise problem


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it that
        """Log no requests."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # Some versions of Python let several processes of a user share a port. Their workers' metrics would be mixed up.
    allow_reuse_port = False

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], most_seconds: float) -> None:
        self.address_family = family
        self._most_seconds = most_seconds
        #: When each open connection began.
        self._opened: dict[Any, float] = {}
        super().__init__(address, _Handler)

    def verify_request(self, *_: Any) -> bool:
        """Refuse a connection if there are too many."""
        return len(self._opened) < _MOST_CONNECTIONS

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread."""
        self._opened[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self._opened.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End the connections that last too long. The server calls this at least twice a second."""
        now = time.monotonic()
        for request, opened_at in self._opened.copy().items():
            if now - opened_at > self._most_seconds:
                # Its thread then finds the end of the stream. It closes the socket, and may have done so.
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Print no traceback because a client has gone."""
        if not isinstance(sys.exception(), OSError):
            logger.exception("a request for metrics failed")
