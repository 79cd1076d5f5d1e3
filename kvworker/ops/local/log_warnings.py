"""Follows a Celery log for warnings and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

# The start of a record in Celery's log: [2025-12-21 10:00:00,000: WARNING/MainProcess] ...
_RECORD = re.compile(r"\[[-0-9]+ [0-9:,]+: (\w+)/")
_LEVELS = {"WARNING", "ERROR", "CRITICAL"}


class LogWarnings:
    """Reads the warnings and errors that a log gains after this object is made. A traceback belongs to its record."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._position = log.stat().st_size
        self._in_warning = False

    def new_lines(self) -> Iterator[str]:
        """Read the complete lines that were added since the last call."""
        with self._log.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                text = line.decode(errors="replace").rstrip()
                if match := _RECORD.match(text):
                    self._in_warning = match[1] in _LEVELS
                if self._in_warning and text:
                    yield text
