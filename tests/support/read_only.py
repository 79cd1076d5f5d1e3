"""Runs a command on a file system that it cannot write, as in a container with a read-only root."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path


def read_only(command: list[str], writable: Iterable[Path]) -> list[str]:
    """Return the command line that runs a command so. Its process id, signals and output stay its own.

    Where the system gives no mount namespace, as in most containers, the command runs on the file system as it is.

    Args:
        command: The command.
        writable: The directories that it may write.
    """
    namespace = _namespace()
    if not namespace:
        return command
    kept = "".join(f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(path))} && " for path in writable)
    return [*namespace, "sh", "-c", f'{kept}mount -o remount,bind,ro / && exec "$@"', "sh", *command]


@cache
def _namespace() -> tuple[str, ...]:
    namespace = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--user", "--map-root-user")
    try:
        tried = subprocess.run(
            [*namespace, "sh", "-c", "mount -o remount,bind,ro / && ! touch /kvworker-test 2>/dev/null"],
            capture_output=True,
            timeout=60,
            check=False,
        )
    except FileNotFoundError:
        return ()
    return namespace if tried.returncode == 0 else ()
