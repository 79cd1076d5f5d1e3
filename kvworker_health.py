"""Whether the workers and the beat of this machine are alive, by the heartbeats that they write: ``kvworker-health``.

A probe runs it every few seconds, so it stands alone: it imports nothing of kvworker, connects to nothing, and starts
as fast as Python does. The writer is ``kvworker.worker.heartbeat``.
"""

from __future__ import annotations

import os
import stat
import sys
import time

#: The environment variable that names the file of a process, and the file that a check reads.
VARIABLE = "KVWORKER_HEARTBEAT"
STARTING, READY, NOT_READY, WEDGED, STOPPING = "starting", "ready", "not ready", "wedged", "stopping"

_USAGE = f"""\
usage: kvworker-health [--ready] [FILE ...]

Check that a worker or a beat is alive, by the heartbeat in FILE. Without FILE, check the one that {VARIABLE} names,
or else every worker and beat of this user on this machine. With --ready, it must also reach its servers.
The exit code is 0 if all are well, 1 if one is not or there is none, and 2 for a wrong argument.
"""


class Heartbeat:
    """What a process last wrote about itself.

    Args:
        state: One of ``STARTING``, ``READY``, ``NOT_READY``, ``WEDGED`` and ``STOPPING``.
        beat_at: When it was written, by the clock ``time.monotonic``, which all processes of a machine share.
        alive_until: By when it is written again, by the same clock, unless the process is frozen or wedged.
        pid: The process id.
        name: What the process is, such as ``worker celery@host``.
        problem: Why it is not ready, or wedged; else empty.
        born: What ``born`` returns for the process. Another one may have its number later, as in each container.
    """

    def __init__(
        self, state: str, beat_at: float, alive_until: float, pid: int, name: str, problem: str = "", born: str = ""
    ) -> None:
        self.state = state
        self.beat_at = beat_at
        self.alive_until = alive_until
        self.pid = pid
        self.name = name
        self.problem = problem
        self.born = born

    def to_text(self) -> str:
        """Return the content of the file."""
        one_line = " ".join(self.problem.split())
        times = f"{self.beat_at!r}\n{self.alive_until!r}"
        return f"{self.state}\n{times}\n{self.pid}\n{self.name}\n{one_line}\n{self.born}\n"

    def is_running(self) -> bool:
        """Tell whether the process still runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        now = born(self.pid)
        return not now or not self.born or now == self.born

    def fault(self, *, ready: bool = False) -> str:
        """Return why the process fails the check, or "".

        Args:
            ready: Whether it must also be ready.
        """
        now = time.monotonic()
        if not self.is_running():
            return f"process {self.pid} has ended"
        if self.state == WEDGED:
            return f"wedged: {self.problem}"
        # After a restart of the machine the clock begins again.
        if not self.beat_at <= now <= self.alive_until:
            return f"frozen or wedged: its last heartbeat was {max(0.0, now - self.beat_at):.0f} s ago"
        if self.state == STARTING:
            return "still starting"
        return f"not ready: {self.problem or self.state}" if ready and self.state != READY else ""


def read(file: str) -> Heartbeat:
    """Read a file.

    Raises:
        OSError: It cannot be read.
        ValueError: It holds no heartbeat.
    """
    with open(file, encoding="utf-8", errors="replace") as opened:  # noqa: PTH123 - pathlib doubles the time
        state, beat_at, alive_until, pid, name, problem, start, *_ = [*opened.read(65_536).split("\n"), *7 * [""]]
    return Heartbeat(state, float(beat_at), float(alive_until), int(pid), name, problem, start)


def born(pid: int) -> str:
    """Return when a process began, in the system's own unit; "" where the system does not tell, as outside of Linux."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as opened:  # noqa: PTH123 - as above
            # The name of the program, in brackets, may hold anything.
            return opened.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def default_directory() -> str:
    """Return the directory of the heartbeats of this user's processes, where ``VARIABLE`` names no file."""
    return f"{os.environ.get('TMPDIR') or '/tmp'}/kvworker-{os.geteuid()}/heartbeats"  # noqa: S108 - it is checked


def default_files() -> list[str]:
    """Return the file that ``VARIABLE`` names, or else all that the default directory holds.

    Raises:
        PermissionError: Another user could have written them.
    """
    if named := os.environ.get(VARIABLE):
        return [named]
    directory = default_directory()
    try:
        found = os.lstat(directory)
    except FileNotFoundError:
        return []
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(f"other users could have written {directory}; remove it")
    return [f"{directory}/{name}" for name in sorted(os.listdir(directory)) if not name.startswith(".")]  # noqa: PTH208 - as above


def check(file: str, *, ready: bool = False) -> tuple[str, str]:
    """Check one file, and return the name of its process, or else of the file, and why it fails or "".

    Args:
        file: The file.
        ready: Whether the process must also be ready.
    """
    try:
        heartbeat = read(file)
    except FileNotFoundError:
        return file, "no heartbeat: nothing runs that writes this file"
    except (OSError, ValueError) as error:
        return file, f"unreadable: {error}"
    return heartbeat.name, heartbeat.fault(ready=ready)


def main() -> int:
    """Check what the arguments name, print a line for each, and return the exit code."""
    arguments = sys.argv[1:]
    ready = "--ready" in arguments
    files = [argument for argument in arguments if argument != "--ready"]
    if any(file.startswith("-") for file in files):
        is_help = {"-h", "--help"} & {*files}
        print(_USAGE, end="", file=sys.stdout if is_help else sys.stderr)
        return 0 if is_help else 2
    try:
        files = files or default_files()
    except OSError as error:
        print(f"FAIL {error}")  # noqa: T201
        return 1
    if not files:
        print(f"FAIL no worker and no beat of this user writes a heartbeat into {default_directory()}")  # noqa: T201
    faults = [check(file, ready=ready) for file in files]
    for name, fault in faults:
        print(f"FAIL {name}: {fault}" if fault else f"ok   {name}")  # noqa: T201
    return 0 if faults and not any(fault for _, fault in faults) else 1


if __name__ == "__main__":
    sys.exit(main())
