"""The heartbeat of a worker or a beat: a file that its main loop writes again and again, and reports to systemd.

``kvworker_health`` reads the file. It knows no broker and no database, so a process that waits for either is alive.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from celery.utils.log import get_logger

import kvworker_health as health
from kvworker.errors import ConfigurationError
from kvworker.settings.private_paths import private_directory, replace_private_file
from kvworker.systemd import Systemd

logger = get_logger(__name__)

#: The pause between two heartbeats.
BEAT_SECONDS: Final = 2.0
#: The longest turn of a live loop, unless systemd's watchdog says otherwise. The longest wait of a loop that
#: works is that for a frozen server, which takes seconds. The rest is for a machine that gives the process little time.
SILENCE_SECONDS: Final = 30.0


class Heartbeat:
    """Writes the heartbeat of this process. Only the main loop may call it.

    Attributes:
        beat_seconds: The longest interval between two calls of ``beat``.

    Args:
        role: ``worker`` or ``beat``.
        name: The name of this process in the check's answers, such as ``worker celery@host``.
        environ: The environment variables.
        longest_task_seconds: The longest time that the loop runs a task itself.
    """

    def __init__(self, role: str, name: str, environ: Mapping[str, str], *, longest_task_seconds: float = 0.0) -> None:
        self._role = role
        self._name = name
        self._named_file = environ.get(health.VARIABLE, "")
        self._systemd = Systemd(environ)
        watchdog = self._systemd.watchdog_seconds
        self.beat_seconds = min(BEAT_SECONDS, watchdog / 3) if watchdog else BEAT_SECONDS
        self._silence_seconds = (watchdog or SILENCE_SECONDS) + longest_task_seconds
        if watchdog and longest_task_seconds:
            self._systemd.report(f"WATCHDOG_USEC={self._silence_seconds * 1e6:.0f}")
        self._pid = os.getpid()
        self._born = health.born(self._pid)
        self._file: Path | None = None
        self._written: tuple[str, str] | None = None
        self._due_at = 0.0
        self._was_ready = self._is_stopping = self._has_failed = False

    def start(self) -> None:
        """Take the file, and say that this process starts.

        Raises:
            ConfigurationError: The file that the environment names cannot be written, or another process writes it.
        """
        try:
            self._file = _claimed(Path(self._named_file)) if self._named_file else self._own_file()
            self._write(health.STARTING, "")
        except (OSError, ConfigurationError) as error:
            self._file = None
            if self._named_file:
                raise ConfigurationError(f"{health.VARIABLE}: {error}") from error
            logger.warning("writes no heartbeat, so `kvworker-health` cannot check this process: %s", error)

    def beat(self, problem: str = "") -> None:
        """Say that the loop turns, if that was not said just now.

        Args:
            problem: Why this process cannot serve, without a password; "" if it can.
        """
        if self._is_stopping:
            state, problem = health.STOPPING, ""
        else:
            state = health.NOT_READY if problem else health.READY
        if time.monotonic() >= self._due_at or self._written != (state, problem):
            self._tell(state, problem)

    def give_up(self, problem: str) -> None:
        """Say that this process can never serve again, although its loop turns, so that it is restarted.

        Args:
            problem: Why it will never serve again.
        """
        if self._written != (health.WEDGED, problem):
            logger.critical("this worker is wedged, and its health check fails from now on: %s", problem)
            self._systemd.report(f"STATUS=wedged: {problem}")
            self._try_to_write(health.WEDGED, problem)

    def stop(self) -> None:
        """Say that this process stops. It may beat until it ends."""
        self._is_stopping = True
        self._systemd.report("STOPPING=1", "STATUS=stopping")
        self._try_to_write(health.STOPPING, "")

    def end(self) -> None:
        """Remove the file. A forked child does nothing."""
        if self._file is not None and os.getpid() == self._pid:
            with suppress(OSError):
                self._file.unlink()
            self._file = None

    def _tell(self, state: str, problem: str) -> None:
        reports = ["WATCHDOG=1"]
        if self._written != (state, problem):
            reports.append(f"STATUS={state}{problem and f': {problem}'}".replace("\n", " "))
        if state == health.READY and not self._was_ready:
            self._was_ready = True
            reports.append("READY=1")
        elif not self._was_ready:
            # It waits for a server for as long as that takes, so systemd must not give up.
            reports.append(f"EXTEND_TIMEOUT_USEC={self._silence_seconds * 1e6:.0f}")
        self._systemd.report(*reports)
        self._try_to_write(state, problem)

    def _try_to_write(self, state: str, problem: str) -> None:
        try:
            self._write(state, problem)
        except OSError as error:
            if not self._has_failed:
                logger.error("cannot write the heartbeat, so the health check fails: %s", error)  # noqa: TRY400
            self._has_failed = True
        else:
            self._has_failed = False

    def _write(self, state: str, problem: str) -> None:
        now = time.monotonic()
        self._written, self._due_at = (state, problem), now + self.beat_seconds
        if self._file is not None:
            until = now + self._silence_seconds
            record = health.Heartbeat(state, now, until, self._pid, self._name, problem, self._born)
            replace_private_file(self._file, record.to_text())

    def _own_file(self) -> Path:
        directory = Path(health.default_directory())
        for private in (directory.parent, directory):
            private_directory(private, instead=f"name a file with {health.VARIABLE}")
        for file in directory.iterdir():
            with suppress(OSError, ValueError):
                if not health.read(str(file)).is_running():
                    file.unlink()
        return directory / f"{self._role}-{self._pid}"


def _claimed(file: Path) -> Path:
    with suppress(FileNotFoundError, ValueError):
        other = health.read(str(file))
        is_alive = other.is_running() and other.beat_at <= time.monotonic() <= other.alive_until
        if is_alive and other.pid != os.getpid():
            raise ConfigurationError(
                f"process {other.pid} ({other.name}) writes its heartbeat into {file}; give each process its own file"
            )
    return file
