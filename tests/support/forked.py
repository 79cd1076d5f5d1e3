"""Processes forked from a server that has imported the libraries.

A worker or a command spends most of its start on imports, up to a second of processor time. Each forked process is a
real process: it has its own pid, environment, directory and output, and it reads the configuration itself.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final, TypeAlias

from kvworker import cli
from kvworker.ops import celery_main

_PRELOADED: Final = [
    "tests.support.forked",
    "kvworker.cli.group",
    "kvworker.integrations.mcp.serving",
    "celery.bin.worker",
    "celery.bin.beat",
    "celery.concurrency.prefork",
    "kvworker.worker.celery_worker",
    "kvworker.worker.beat_scheduler",
    "kvworker.adapters.postgres",
    "kvworker.adapters.sqlite",
    "sqlalchemy.dialects.postgresql.psycopg",
]

context: Final = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(_PRELOADED)


#: The files of standard input, output and errors.
Streams: TypeAlias = tuple[Path, Path, Path]


class ForkedProcess:
    """A running process with the methods of ``subprocess.Popen`` that the tests use."""

    def __init__(
        self,
        main: Callable[[], object],
        argv: Sequence[str],
        directory: Path,
        environ: Mapping[str, str],
        streams: Streams,
    ) -> None:
        arguments = (main, list(argv), directory, dict(environ), streams)
        self._process: ForkServerProcess = context.Process(target=_run, args=arguments)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process id."""
        pid = self._process.pid
        assert pid is not None
        return pid

    def poll(self) -> int | None:
        """Return the exit code, or None while the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait for the end, and return the exit code."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def forked_celery(arguments: Sequence[str], directory: Path, environ: Mapping[str, str], log: Path) -> ForkedProcess:
    """Start Celery's worker or beat, which append what they print to a log."""
    argv = ["celery", *arguments]
    return ForkedProcess(celery_main.main, argv, directory, environ, (Path(os.devnull), log, log))


def forked_server(arguments: Sequence[str], directory: Path, environ: Mapping[str, str], log: Path) -> ForkedProcess:
    """Start a command of ``kvworker`` that appends what it prints to a log."""
    argv = ["kvworker", *arguments]
    return ForkedProcess(cli.main, argv, directory, environ, (Path(os.devnull), log, log))


def forked_command(
    arguments: Sequence[str], directory: Path, environ: Mapping[str, str], stdin: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of ``kvworker`` and wait until it ends."""
    with tempfile.TemporaryDirectory() as name:
        streams = (Path(name, "in"), Path(name, "out"), Path(name, "err"))
        streams[0].write_text(stdin)
        process = ForkedProcess(cli.main, ["kvworker", *arguments], directory, environ, streams)
        code = process.wait(timeout=60)
        return subprocess.CompletedProcess(list(arguments), code, *(path.read_text() for path in streams[1:]))


def _run(
    main: Callable[[], object], argv: list[str], directory: Path, environ: dict[str, str], streams: Streams
) -> None:
    for number, (path, mode) in enumerate(zip(streams, ("rb", "ab", "ab"), strict=True)):
        with path.open(mode, buffering=0) as stream:
            os.dup2(stream.fileno(), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(directory)
    sys.argv = argv
    multiprocessing.current_process().name = "MainProcess"  # as logs name it elsewhere
    try:
        main()
    finally:
        atexit._run_exitfuncs()
