"""The recipe for Sentry in docs/how-to/monitoring.md reports a worker's fault, and none of the values in it."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from kvworker import KeyValueStore, OperationFailedError, VersionConflictError
from tests.acceptance.conftest import POOLS
from tests.support.documents import ROOT, read_blocks
from tests.support.processes import ProcessNode, running, wait_until

VALUE = "a-value-that-nobody-else-should-see"
#: Makes the operations of one key fail in a way that nothing foresees.
FAULT = """
from kvworker.worker import runtime

execute = runtime.execute

def failing(adapter, request, visible):
    if request.arguments["key"] == "faulty":
        value = request.arguments["value"].text
        raise ValueError("a fault")
    return execute(adapter, request, visible)

runtime.execute = failing
"""


class Sentry(ThreadingHTTPServer):
    """Keeps the events that it receives."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.envelopes: list[str] = []

    def events(self) -> list[dict[str, Any]]:
        items = [json.loads(line) for envelope in self.envelopes for line in envelope.splitlines() if line]
        return [item for item in items if "exception" in item or "logentry" in item]


class _Handler(BaseHTTPRequestHandler):
    server: Sentry

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        text = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        self.server.envelopes.append(text.decode())
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    with Sentry() as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_a_fault_reaches_sentry_without_the_value(
    store: KeyValueStore, sentry: Sentry, tmp_path: Path, kv_environ: dict[str, str], pool: list[str]
) -> None:
    (recipe,) = (
        block.text
        for block in read_blocks(ROOT / "docs/how-to/monitoring.md")
        if block.options.get("file") == "sentry_app.py"
    )
    (tmp_path / "sentry_app.py").write_text(recipe)
    (tmp_path / "fault.py").write_text(FAULT)
    environ = {**kv_environ, "SENTRY_DSN": f"http://key@127.0.0.1:{sentry.server_port}/1"}
    command = [sys.executable, "-m", "celery", "-A", "sentry_app", "worker", *pool, "--include=fault"]
    with running(ProcessNode("worker", command, directory=tmp_path, environ=environ)):
        store.set("n", "k", VALUE, timeout=60)
        with pytest.raises(VersionConflictError):
            store.set("n", "k", VALUE, if_absent=True, timeout=60)
        with pytest.raises(OperationFailedError):
            store.set("n", "faulty", VALUE, timeout=60)
        wait_until(sentry.events, timeout_seconds=60, what="the event")
    (event,) = sentry.events()
    (error,) = event["exception"]["values"]
    assert (error["type"], error["value"]) == ("ValueError", "a fault")
    assert error["stacktrace"]["frames"]
    assert not [envelope for envelope in sentry.envelopes if VALUE in envelope]
