"""The files of an import and an export: sources that can be read twice, and targets that are never half written."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO


@contextmanager
def rereadable_file(file: Path | None) -> Iterator[tuple[IO[bytes], int]]:
    """Open a file that can be read more than once, and give its size in bytes.

    Standard input (None) and pipes are first copied into a temporary file, because an import reads its source twice.
    """
    with nullcontext(sys.stdin.buffer) if file is None else file.open("rb") as source:
        if file is not None and source.seekable():
            yield source, file.stat().st_size
            return
        with tempfile.TemporaryFile() as copy:
            shutil.copyfileobj(source, copy)
            size_bytes = copy.tell()
            copy.seek(0)
            yield copy, size_bytes


@contextmanager
def replaced_file(file: Path) -> Iterator[IO[str]]:
    """Write a UTF-8 file that appears under its name only when it is complete; a failure keeps the old one.

    Only its owner may read it.
    """
    if file.exists() and not file.is_file():
        # Write into a device or a named pipe. Replacing it would destroy it.
        with file.open("w", encoding="utf-8") as target:
            yield target
        return
    file = file.resolve()
    # A random name, under which no link can have been planted, and a file that only its owner may read.
    descriptor, name = tempfile.mkstemp(prefix=".kvworker-", suffix=".part", dir=file.parent)
    unfinished = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8") as target:  # noqa: PTH123 - a descriptor has no path
            yield target
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
