"""A server that answers a question for the primary with whatever a test wants."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_OTHER_ANSWERS: Final = {b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n", b"SUBSCRIBE": b""}


class LyingSentinel(socketserver.ThreadingTCPServer):
    """Answers ``SENTINEL`` with given bytes, and all else as Redis does."""

    daemon_threads = True

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def host(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.server_address[:2]
        return str(host), port


class _Handler(socketserver.StreamRequestHandler):
    server: Any

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while count := self.rfile.readline()[1:]:
                words = [self.rfile.read(int(self.rfile.readline()[1:]) + 2)[:-2] for _ in range(int(count))]
                is_question = words[0].upper() == b"SENTINEL"
                reply = self.server.answer if is_question else _OTHER_ANSWERS.get(words[0].upper(), b"+OK\r\n")
                self.wfile.write(reply)


def address(host: bytes, port: bytes) -> bytes:
    """Encode an answer that names a server."""
    return b"*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(host), host, len(port), port)


@contextmanager
def lying_sentinel(answer: bytes) -> Iterator[LyingSentinel]:
    """Run such a server."""
    with LyingSentinel(answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
