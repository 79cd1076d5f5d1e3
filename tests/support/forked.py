"""Celery processes forked from a server that has imported the libraries.

A worker spends most of its start on imports, a second of processor time. Each forked process is a real process: it has
its own pid, environment, directory and log, and it imports ``tasks`` and reads the configuration itself.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Final

from kvworker.ops import celery_main

_PRELOADED: Final = [
    "tests.support.forked",
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


class ForkedCelery:
    """A running Celery process with the methods of ``subprocess.Popen`` that the tests use."""

    def __init__(self, arguments: list[str], directory: Path, environ: Mapping[str, str], log: Path) -> None:
        self._process: ForkServerProcess = context.Process(target=_run, args=(arguments, directory, dict(environ), log))
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
            raise subprocess.TimeoutExpired("celery", timeout)
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


def _run(arguments: list[str], directory: Path, environ: dict[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(directory)
    with log.open("ab", buffering=0) as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv = ["celery", *arguments]
    try:
        celery_main.main()
    finally:
        atexit._run_exitfuncs()
