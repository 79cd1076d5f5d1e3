"""Beat's scheduler with a JSON file. Celery's own keeps a pickle, so whoever can write it runs code in beat.

The file holds only when each task was last sent, so that a restarted beat sends none too early. What is sent, and how
often, comes from the configuration.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from celery.beat import Scheduler

logger = logging.getLogger(__name__)

_MAX_FILE_BYTES: Final = 65_536


class JsonScheduler(Scheduler):
    """Celery's scheduler, which remembers the times of the last runs in a JSON file.

    Args:
        schedule_filename: The file (`--schedule`). A file that cannot be read is replaced.
    """

    def __init__(self, *args: Any, schedule_filename: str, **kwargs: Any) -> None:
        self._file = Path(schedule_filename)
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Take the entries from the configuration, and the times of their last runs from the file."""
        super().setup_schedule()
        for name, last_run_at in self._read().items():
            entry = self.schedule.get(name)
            # A time in the future would keep the task from being sent until then.
            if entry is not None and last_run_at <= entry.default_now():
                entry.last_run_at = last_run_at
        self.sync()

    def sync(self) -> None:
        """Write the file. A file that cannot be written does no harm: a restarted beat sends some tasks early."""
        runs = {name: entry.last_run_at.isoformat() for name, entry in self.schedule.items()}
        unfinished = self._file.with_name(f"{self._file.name}.new")
        try:
            unfinished.unlink(missing_ok=True)
            unfinished.touch(mode=0o600, exist_ok=False)
            unfinished.write_text(json.dumps({"last_run_at": runs}), encoding="utf-8")
            unfinished.replace(self._file)
        except OSError as error:
            logger.error("cannot write the schedule file %s: %s", self._file, error.strerror)  # noqa: TRY400

    @property
    def info(self) -> str:
        """Name the file in beat's banner."""
        return f"    . schedule -> {self._file}"

    def _read(self) -> dict[str, datetime]:
        try:
            with self._file.open("rb") as file:
                runs = json.loads(file.read(_MAX_FILE_BYTES))["last_run_at"]
            times = {str(name): datetime.fromisoformat(text) for name, text in runs.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            logger.warning("the schedule file %s is replaced: it cannot be read (%s)", self._file, type(error).__name__)
            return {}
        return {name: time for name, time in times.items() if time.tzinfo is not None}


#: For Celery's setting ``beat_scheduler``.
PATH: Final = f"{__name__}:{JsonScheduler.__name__}"
