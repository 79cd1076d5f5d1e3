"""The directories and files that kvworker trusts because of their place: only its user may have written them.

Another user who can write a state directory chooses the broker, the database and the program's own state.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kvworker.errors import ConfigurationError

_ROOT_UID = 0


def private_directory(directory: Path, *, instead: str) -> Path:
    """Make a directory that only this user can use, or check an existing one.

    Args:
        directory: The directory. A missing parent is made too.
        instead: Another way out than repairing the directory, for the error.

    Raises:
        ConfigurationError: Others can write to it, or could have chosen it.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    check_private(directory, instead=instead)
    return directory


def check_private(path: Path, *, instead: str) -> None:
    """Check that a path is not a symbolic link, and that only this user and root own it and can write to it.

    Args:
        path: An existing directory or file.
        instead: Another way out than repairing it, for the error.

    Raises:
        ConfigurationError: It is not so.
    """
    found = path.lstat()
    problem = "is a symbolic link; replace it by what it points to" if stat.S_ISLNK(found.st_mode) else ""
    if problem := problem or _owner_problem(path, found):
        raise ConfigurationError(f"{path} {problem}, or {instead}")


def check_owner(path: Path, found: os.stat_result) -> None:
    """Check that only this user and root own a file or a link to it, and can write to it.

    Args:
        path: The path, for the error.
        found: The system's answer about the opened file or the link.

    Raises:
        ConfigurationError: It is not so.
    """
    if problem := _owner_problem(path, found, "give it to the user of this process"):
        raise ConfigurationError(f"{path} {problem}")


def _owner_problem(path: Path, found: os.stat_result, remedy: str = "remove it") -> str:
    if found.st_uid not in (_ROOT_UID, os.geteuid()):
        return f"belongs to another user (uid {found.st_uid}); {remedy}"
    # The mode of a link means nothing.
    if not stat.S_ISLNK(found.st_mode) and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"can be written by other users; check its content and run `chmod go-w {path}`"
    return ""


def replace_private_file(file: Path, text: str) -> None:
    """Replace the whole content of a file at once, or make it. Only its owner can read it.

    Args:
        file: The file.
        text: Its new content.

    Raises:
        OSError: It cannot be written. The old content stays.
    """
    unfinished = file.with_name(f".{file.name}.new")
    unfinished.unlink(missing_ok=True)
    unfinished.touch(mode=0o600, exist_ok=False)
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)
