"""A network that loses connections without a word: a proxy that stops forwarding, and keeps the sockets open."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_POLL_SECONDS = 0.2


class SilentProxy:
    """Forwards connections of a loopback port to a server, until it is told to forward these no more.

    Args:
        connect: Opens a connection to the server.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = threading.Event()
        self._silence = threading.Event()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """The loopback port to connect to."""
        return int(self._listener.getsockname()[1])

    def silence(self) -> None:
        """Forward nothing more on the connections that are open now. New ones work."""
        self._silence.set()
        self._silence = threading.Event()

    def close(self) -> None:
        """Close all connections."""
        self._closed.set()
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with contextlib.suppress(OSError):
                    server = self._connect()
                    self._sockets += [client, server]
                    pair, silence = (client, server), self._silence
                    threading.Thread(target=self._forward, args=(*pair, silence), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, silence: threading.Event) -> None:
        other = {client: server, server: client}
        with contextlib.suppress(OSError, ValueError):
            while not silence.is_set() and not self._closed.is_set():
                for ready in select.select([client, server], [], [], _POLL_SECONDS)[0]:
                    data = b"" if silence.is_set() else ready.recv(65_536)
                    if not data and not silence.is_set():
                        client.close()
                        server.close()
                        return
                    other[ready].sendall(data)


@contextmanager
def silent_proxy(address: str | tuple[str, int]) -> Iterator[SilentProxy]:
    """Run a proxy in front of a server: the path of its Unix socket, or its host and port."""

    def connect() -> socket.socket:
        if isinstance(address, tuple):
            return socket.create_connection(address)
        server = socket.socket(socket.AF_UNIX)
        server.connect(address)
        return server

    proxy = SilentProxy(connect)
    try:
        yield proxy
    finally:
        proxy.close()
