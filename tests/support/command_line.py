"""Runs the command line as a user does: in real processes, which it can stop and inspect."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support.forked import forked_command
from tests.support.processes import wait_until

ROOT = Path(__file__).resolve().parents[2]
KVWORKER = (sys.executable, "-m", "kvworker")
_OWN_VARIABLES = ("ATLAS_KV_", "KVWORKER_")


def clean_environ(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without kvworker's variables, with this checkout on the import path."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
    return {**environ, "PYTHONPATH": str(ROOT), **(extra or {})}


def kvworker(
    *arguments: str, cwd: Path, stdin: str = "", environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and wait until it ends."""
    return forked_command(arguments, cwd, clean_environ(environ), stdin)


def kvworker_json(*arguments: str, cwd: Path) -> Any:
    """Run a command with ``--json`` and parse what it prints."""
    done = kvworker(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@dataclass
class Up:
    """A running ``kvworker up`` and all its child processes."""

    process: subprocess.Popen[bytes]
    output: Path
    family: list[psutil.Process]

    def text(self) -> str:
        """Everything that it has printed so far."""
        return self.output.read_text()

    def child(self, word: str) -> psutil.Process:
        """Find the child process whose command line contains a word."""
        return next(process for process in self.family if word in " ".join(process.cmdline()))

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, and wait for the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def survivors(self) -> list[psutil.Process]:
        """List the child processes that still run."""
        return [process for process in self.family if process.is_running() and process.status() != "zombie"]


@contextmanager
def running_up(cwd: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Iterator[Up]:
    """Start ``kvworker up`` and wait until it reports that it runs. Kill all remaining processes at the end."""
    output = cwd / "up.out"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [*KVWORKER, "up", *arguments], cwd=cwd, env=clean_environ(environ), stdout=out, stderr=subprocess.STDOUT
        )
    up = Up(process, output, [])
    try:
        wait_until(
            lambda: "Try, in another terminal" in up.text() or process.poll() is not None,
            timeout_seconds=60,
            what="kvworker up",
        )
        assert process.poll() is None, up.text()
        up.family = psutil.Process(process.pid).children(recursive=True)
        yield up
    finally:
        process.kill()
        process.wait()
        for survivor in up.survivors():
            survivor.kill()
