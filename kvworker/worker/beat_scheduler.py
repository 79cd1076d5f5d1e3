"""Beat's scheduler with a JSON file. Celery's own keeps a pickle, so anyone who can write it runs code in beat.

The file holds only when each task was last sent, so that a restarted beat sends none too early. The tasks and their
intervals come from the configuration.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

from billiard import current_process
from celery.beat import Scheduler, SchedulingError
from celery.platforms import EX_FAILURE

from kvworker.errors import ConfigurationError
from kvworker.settings.private_paths import replace_private_file
from kvworker.worker.heartbeat import Heartbeat

logger = logging.getLogger(__name__)

_MAX_FILE_BYTES: Final = 65_536


class JsonScheduler(Scheduler):
    """Celery's scheduler, which remembers the times of the last runs in a JSON file.

    Args:
        schedule_filename: The file (`--schedule`). A file that cannot be read is replaced.
    """

    def __init__(self, *args: Any, schedule_filename: str, **kwargs: Any) -> None:
        self._file = Path(schedule_filename)
        self._heartbeat: Heartbeat | None = None
        self._problem = ""
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Take the entries from the configuration, and the times of their last runs from the file.

        Raises:
            SystemExit: The heartbeat that the environment names cannot be written.
        """
        if _runs_alone():
            self._heartbeat = Heartbeat("beat", f"beat {socket.gethostname()}", os.environ)
            try:
                self._heartbeat.start()
            except ConfigurationError as error:
                logger.critical("beat cannot run: %s", error)
                raise SystemExit(EX_FAILURE) from None
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
        try:
            replace_private_file(self._file, json.dumps({"last_run_at": runs}))
        except OSError as error:
            logger.error("cannot write the schedule file %s: %s", self._file, error.strerror)  # noqa: TRY400

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Do one turn of beat's loop, say so, and return the seconds until the next one."""
        delay: float = super().tick(*args, **kwargs)
        if self._heartbeat is None:
            return delay
        self._heartbeat.beat(self._problem)
        return min(delay, self._heartbeat.beat_seconds)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Send a task as Celery does, and note whether that works."""
        try:
            sent = super().apply_async(*args, **kwargs)
        except SchedulingError:
            self._problem = "the last task could not be sent to the broker"
            raise
        self._problem = ""
        return sent

    def close(self) -> None:
        """Write the file, and leave no heartbeat behind."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        super().close()
        if self._heartbeat is not None:
            self._heartbeat.end()

    def _ensure_connected(self) -> Any:
        """Connect as Celery does, and beat meanwhile."""
        self.connection.ensure_connection = partial(self.connection.ensure_connection, callback=self._beat_unconnected)
        return super()._ensure_connected()

    def _beat_unconnected(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.beat("the broker is away")

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


def _runs_alone() -> bool:
    """Whether this is the process of ``celery beat``, and no worker's with ``-B``, which has a heartbeat itself."""
    return current_process().name == "MainProcess" and threading.current_thread() is threading.main_thread()


#: For Celery's setting ``beat_scheduler``.
PATH: Final = f"{__name__}:{JsonScheduler.__name__}"
