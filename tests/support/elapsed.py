"""Bounds on elapsed time that hold on a busy machine too, and are as sharp as written on a quiet one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_NANOSECONDS = 1e9


@contextmanager
def finishes_within(limit_seconds: float) -> Iterator[None]:
    """Check that a block takes at most ``limit_seconds``, apart from the time for which the machine was busy.

    Time does not count while a thread of this process, or of a server or worker that it started, was ready to run but
    had no CPU. Without the kernel's figures (outside Linux) all time counts.
    """
    waited, started = _waited_seconds(), time.monotonic()
    yield
    elapsed = time.monotonic() - started
    if elapsed >= limit_seconds:
        now = _waited_seconds()
        busy = sum(max(0.0, seconds - waited.get(thread, 0.0)) for thread, seconds in now.items())
        assert elapsed - busy < limit_seconds, f"took {elapsed:.2f} s, of which the machine was busy for {busy:.2f} s"


def _waited_seconds() -> dict[str, float]:
    """Return for each of the threads how long it has waited for a CPU.

    It is the second figure of ``/proc/PID/task/TID/schedstat``, see the kernel's Documentation/scheduler/sched-stats.
    The CPU time that a hypervisor gave to others is added as one more thread.
    """
    found = {"stolen": psutil.cpu_times().steal} if hasattr(psutil.cpu_times(), "steal") else {}
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(OSError):
            for task in Path(f"/proc/{process.pid}/task").iterdir():
                with suppress(OSError):
                    found[str(task)] = int((task / "schedstat").read_text().split()[1]) / _NANOSECONDS
    return found
