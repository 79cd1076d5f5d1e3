"""The world outside: ``python -m tests.chaos.effects.recorder FILE`` serves HTTP and counts effects by key.

``POST /effects`` makes an effect and answers its receipt. ``GET /effects/KEY`` answers the effects of a key. Each
effect is also a line in the file, so that it survives the recorder.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections import defaultdict
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from tests.chaos.effects.history import Effect

_TIMEOUT_SECONDS = 30.0
_PATH = "/effects"


class _Recorder(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, file: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._lock = threading.Lock()
        self._file = file.open("a", encoding="utf-8")
        self._effects: dict[str, list[Effect]] = defaultdict(list)
        self._number = 0

    def make(self, key: str, token: int, arguments: str) -> Effect:
        with self._lock:
            self._number += 1
            effect = Effect(key, token, arguments, f"receipt {self._number}", time.monotonic())
            self._effects[key].append(effect)
            self._file.write(f"{json.dumps(asdict(effect))}\n")
            self._file.flush()
        return effect

    def of(self, key: str) -> list[Effect]:
        with self._lock:
            return list(self._effects[key])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Recorder

    def do_POST(self) -> None:
        fields = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self.server.make(**fields).receipt)

    def do_GET(self) -> None:
        key = unquote(self.path.removeprefix(f"{_PATH}/"))
        self._answer([asdict(effect) for effect in self.server.of(key)])

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self, answer: Any) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class RecorderClient:
    """Makes effects, and looks whether they happened. It never sends a request twice."""

    def __init__(self, port: int) -> None:
        self._port = port

    def make(self, key: str, token: int, arguments: str) -> str:
        """Make an effect and return its receipt."""
        receipt = self._ask("POST", _PATH, {"key": key, "token": token, "arguments": arguments})
        return str(receipt)

    def of(self, key: str) -> list[Effect]:
        """List the effects of a key."""
        return [Effect(**fields) for fields in self._ask("GET", f"{_PATH}/{quote(key, safe='')}")]

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_SECONDS)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


def read_effects(file: Path) -> list[Effect]:
    """Read every effect from a recorder's file."""
    return [Effect(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Serve until killed. The first line of the output is the port."""
    recorder = _Recorder(Path(sys.argv[1]))
    print(recorder.server_port, flush=True)  # noqa: T201 - the starter reads it
    recorder.serve_forever()


if __name__ == "__main__":
    main()
