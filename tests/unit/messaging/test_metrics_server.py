"""The HTTP server for metrics, and clients that would use it up."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app

from kvworker.messaging.metrics_server import MetricsServer
from tests.support.processes import wait_until

Serve = Callable[..., MetricsServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(host: str = "127.0.0.1", **options: float) -> MetricsServer:
            app = make_wsgi_app(CollectorRegistry())
            return stack.enter_context(closing(MetricsServer(app, host, [0], **options)))

        yield start


def connect(server: MetricsServer) -> socket.socket:
    found = urlsplit(server.url)
    return socket.create_connection((str(found.hostname), found.port or 0), timeout=60)


def answers(server: MetricsServer) -> bool:
    try:
        with urlopen(server.url, timeout=60) as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_it_serves_on_every_kind_of_host(serve: Serve, host: str) -> None:
    assert answers(serve(host))


def test_connections_without_a_request_take_few_threads_and_end(serve: Serve) -> None:
    server = serve(most_seconds=1)
    before = threading.active_count()
    with ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(100)]
        # Each byte would begin a timeout between two of them again.
        for client in held[:16]:
            client.sendall(b"GET ")
        # The others have been closed at once.
        assert all(client.recv(1) == b"" for client in held[16:])
        assert threading.active_count() - before <= 16
        assert all(client.recv(1) == b"" for client in held[:16])
        wait_until(lambda: answers(server), timeout_seconds=60, what="an answer after the others have ended")


def test_a_client_that_resets_its_connection_prints_nothing(serve: Serve, capfd: pytest.CaptureFixture[str]) -> None:
    server = serve()
    before = threading.active_count()
    with connect(server) as client:
        client.sendall(b"GET /metrics")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert answers(server)
    wait_until(lambda: threading.active_count() <= before, timeout_seconds=60, what="the end of the connections")
    assert capfd.readouterr().err == ""
