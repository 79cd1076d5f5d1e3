"""Runs the commands of a container, or of a systemd service, as processes on this machine."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.command_line import KVWORKER, clean_environ
from tests.support.health import PROBE
from tests.support.read_only import read_only

_PROGRAMS: Mapping[str, Sequence[str]] = {
    "kvworker": KVWORKER,
    "kvworker-health": PROBE,
    "python": (sys.executable,),
    "celery": (sys.executable, "-m", "celery"),
}


class Container:
    """Runs a container's commands with its environment, but with this machine's paths.

    Args:
        home: The working directory, which also gets the output.
        environ: The environment variables of the container.
        paths: The substitutes for paths of the container, in words and variables.
        writable: The directories of this machine that it may write. None: its file system is not read-only.
    """

    def __init__(
        self, home: Path, environ: Mapping[str, str], paths: Mapping[str, str], writable: Sequence[Path] | None = None
    ) -> None:
        self.home = home
        self._paths = paths
        self._writable = writable
        for directory in (home, *(writable or ())):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        given = {name: self._here(value) for name, value in environ.items()}
        self.environ = clean_environ({"PYTHONUNBUFFERED": "1", **given})

    def _here(self, word: str) -> str:
        # In one pass, since what stands in for one path may hold another.
        pattern = "|".join(map(re.escape, self._paths)) or "(?!)"
        return re.sub(pattern, lambda match: self._paths[match[0]], word)

    def command(self, words: Sequence[str]) -> list[str]:
        """Return the command line that runs a command of the container here."""
        command = [*_PROGRAMS[words[0]], *map(self._here, words[1:])]
        return command if self._writable is None else read_only(command, self._writable)

    def run(self, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run a command, and wait until it ends."""
        return subprocess.run(
            self.command(words),
            cwd=self.home,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command, whose output goes to the log."""
        with (self.home / "log").open("wb") as log:
            return subprocess.Popen(
                self.command(words), cwd=self.home, env=self.environ, stdout=log, stderr=subprocess.STDOUT
            )

    def log(self) -> str:
        """Return what the started command has printed."""
        return (self.home / "log").read_text()


@contextmanager
def stopping(*processes: subprocess.Popen[bytes], code: int = 0) -> Iterator[None]:
    """Stop processes in the end, and check that each exits with this code."""
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        codes = [process.wait(timeout=60) for process in processes]
    assert codes == [code] * len(processes)
