"""The files of a SQLite database, and who may use them."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from sqlalchemy.engine import URL

_SCHEME: Final = "file:"
_OTHERS: Final = stat.S_IROTH | stat.S_IWOTH


def file_of(url: URL) -> Path:
    """Return the file that the URL of a database outside of memory names."""
    name = url.database or ""
    return Path(unquote(name.removeprefix(_SCHEME)) if name.startswith(_SCHEME) else name)


def make_private_file(url: URL) -> None:
    """Make the database's file, empty and for its owner alone, if it is missing.

    SQLite gives its log and its index of it the mode of this file. An existing file keeps its mode.
    """
    if url.query.get("mode") in {"ro", "rw"}:
        return  # SQLite would not make it either, and reports a missing one.
    # It exists, or SQLite reports why it cannot be made.
    with suppress(OSError):
        os.close(os.open(file_of(url), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def files_open_to_others(file: Path) -> list[Path]:
    """Return the database's files that any user of the machine can read or write."""
    file = file.resolve()
    # Nobody opens a file below a directory that is closed to them.
    if any(not directory.stat().st_mode & stat.S_IXOTH for directory in file.parents):
        return []
    files = (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm"))
    return [each for each in files if each.exists() and each.stat().st_mode & _OTHERS]
