"""The files of a SQLite database, and who may use them."""

from __future__ import annotations

import os
import stat
import tempfile
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
    # SQLite, too, makes the file that a symbolic link names. It would not make one with such a mode.
    file = file_of(url).resolve()
    if url.query.get("mode") in {"ro", "rw"} or file.exists():
        return
    # It exists by now, or SQLite reports why it cannot be made.
    with suppress(OSError):
        _make_empty_file(file)


def _make_empty_file(file: Path) -> None:
    """Make a file that no descriptor of ours was ever open on.

    To close one would end all locks of this process on the file. Another thread may hold some: SQLite would then delete
    the log below its connection, with what it writes.
    """
    descriptor, name = tempfile.mkstemp(prefix=".kvworker-", suffix=".part", dir=file.parent)
    try:
        os.close(descriptor)
        os.link(name, file)
    finally:
        Path(name).unlink()


def files_open_to_others(file: Path) -> list[Path]:
    """Return the database's files that any user of the machine can read or write."""
    file = file.resolve()
    # Nobody opens a file below a directory that is closed to them.
    if any(not directory.stat().st_mode & stat.S_IXOTH for directory in file.parents):
        return []
    files = (file, file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm"))
    return [each for each in files if _mode_of(each) & _OTHERS]


def _mode_of(file: Path) -> int:
    # The last process that closes the database deletes its log.
    with suppress(FileNotFoundError):
        return file.stat().st_mode
    return 0
