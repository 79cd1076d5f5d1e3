"""Runs the health check as a probe does, and stands in for systemd."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import kvworker_health

#: The check, with what keeps Python's start short.
PROBE = (sys.executable, "-I", "-S", kvworker_health.__file__)


def probe(*arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """Run the check, and return what it says; the first word is that of the worst outcome, ``ok`` or ``FAIL``."""
    done = subprocess.run(
        [*PROBE, *arguments], capture_output=True, text=True, timeout=60, check=False, env=dict(environ or {})
    )
    assert (done.returncode == 0) == done.stdout.startswith("ok"), done
    assert not done.stderr
    return done.stdout


def beat_at(file: Path) -> float:
    """Return when the last heartbeat was; 0 if there was none."""
    with contextlib.suppress(OSError):
        return kvworker_health.read(str(file)).beat_at
    return 0.0


class FakeSystemd:
    """A socket that a service reports to. A thread empties it, since a full one loses reports."""

    def __init__(self, path: Path, watchdog_seconds: float | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._reports: list[str] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.environ = {"NOTIFY_SOCKET": str(path)}
        if watchdog_seconds is not None:
            self.environ["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1e6))
        self._thread = threading.Thread(target=self._keep_reading)
        self._thread.start()

    def reports(self) -> list[str]:
        """Return every assignment so far, in order."""
        with self._lock, contextlib.suppress(OSError):
            while True:
                self._reports += self._socket.recv(65_536).decode().splitlines()
        return self._reports

    def _keep_reading(self) -> None:
        while not self._closed.wait(0.2):
            self.reports()

    def close(self) -> None:
        """Close the socket."""
        self._closed.set()
        self._thread.join()
        self._socket.close()


@contextmanager
def fake_systemd(directory: Path, watchdog_seconds: float | None = None) -> Iterator[FakeSystemd]:
    """Listen as systemd does, until the context ends."""
    systemd = FakeSystemd(directory / "notify", watchdog_seconds)
    try:
        yield systemd
    finally:
        systemd.close()
