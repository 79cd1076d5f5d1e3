"""Child processes that end when their parent does, each with its own log file."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kvworker.errors import KVStoreError

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 0.02
_LOG_TAIL_BYTES = 1500


class ChildError(KVStoreError):
    """A child process did not start, or ended on its own."""


@dataclass(frozen=True)
class ChildSpec:
    """Describes how to start and stop a child process.

    Attributes:
        name: The name that errors use.
        command: The command line.
        log: The file that standard output and standard error are appended to.
        cwd: The working directory.
        env: The environment; None takes the parent's.
        user: The system user to run as; only root may name one.
        stop_signal: The signal that asks the child to end.
        orphan_signal: The signal that the kernel sends when the parent dies without stopping the child (Linux only).
        stop_seconds: The time that the child has to end before it is killed.
    """

    name: str
    command: Sequence[str]
    log: Path
    cwd: Path
    env: Mapping[str, str] | None = None
    user: str | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    orphan_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0


@dataclass
class Child:
    """A running child process."""

    spec: ChildSpec
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def is_running(self) -> bool:
        """True while the process runs."""
        return self.process.poll() is None

    def stop(self) -> bool:
        """Ask the process to end, and kill it after ``stop_seconds``.

        Returns:
            True if it ended in time, False if it was killed.
        """
        if self.is_running:
            self.process.send_signal(self.spec.stop_signal)
        try:
            self.process.wait(self.spec.stop_seconds)
        except subprocess.TimeoutExpired:
            _kill_group(self.process)
            self.process.wait()
            return False
        return True

    def died(self) -> ChildError:
        """Build the error for a child that ended on its own, with the last lines of its log."""
        return ChildError(
            f"{self.spec.name} ended with exit code {self.process.poll()}; its log is {self.spec.log}"
            f"{_tail(self.spec.log)}"
        )

    def wait_until(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Poll ``is_ready`` until it returns True, for at most ``seconds``.

        Raises:
            ChildError: The process ended, or was not ready in time.
        """
        give_up_at = time.monotonic() + seconds
        while not is_ready():
            if not self.is_running:
                raise self.died()
            if time.monotonic() > give_up_at:
                raise ChildError(f"{self.spec.name} was not ready within {seconds:g} s; its log is {self.spec.log}")
            time.sleep(_POLL_SECONDS)


@contextmanager
def running_child(spec: ChildSpec) -> Iterator[Child]:
    """Run a child process, and stop it when the context ends.

    Raises:
        ChildError: The process cannot be started.
    """
    child = Child(spec, _start(spec))
    try:
        yield child
    finally:
        child.stop()


def _start(spec: ChildSpec) -> subprocess.Popen[bytes]:
    try:
        with spec.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own code builds the commands, without user input
                spec.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=spec.cwd,
                env=spec.env,
                user=spec.user,
                group=spec.user,
                extra_groups=None if spec.user is None else [],
                umask=0o077,
                # Ctrl-C must reach the parent alone, which then stops its children in order.
                start_new_session=True,
                preexec_fn=_signal_on_parent_death(spec.orphan_signal),  # noqa: PLW1509 - started from one thread
            )
    except OSError as error:
        raise ChildError(f"{spec.name} cannot be started: {error}") from error


def _signal_on_parent_death(orphan_signal: signal.Signals) -> Callable[[], None] | None:
    """Have the kernel signal the child when this process dies, even by SIGKILL. Only Linux supports this."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def set_signal() -> None:
        """Ask the kernel for the signal, in the child and before it runs its program."""
        prctl(_PR_SET_PDEATHSIG, int(orphan_signal), 0, 0, 0)
        # The parent may have died before the call above took effect.
        if os.getppid() != parent:
            os._exit(1)

    return set_signal


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()


def _tail(log: Path) -> str:
    try:
        text = log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
    except OSError:
        return ""
    return f", which ends with:\n{text}" if text else ""
