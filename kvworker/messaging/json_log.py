"""Log lines as JSON: one object for each event."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from kvworker.errors import ConfigurationError
from kvworker.model import escaped_json
from kvworker.settings.environment import LOG_FORMAT_VARIABLE, LOG_FORMATS
from kvworker.wording import did_you_mean


def is_json_wanted(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment asks for logs as JSON.

    Raises:
        ConfigurationError: It asks for a format that does not exist.
    """
    wanted = environ.get(LOG_FORMAT_VARIABLE, "").strip() or "text"
    if wanted not in LOG_FORMATS:
        hint = did_you_mean(wanted, LOG_FORMATS)
        raise ConfigurationError(f"{LOG_FORMAT_VARIABLE} should be {' or '.join(LOG_FORMATS)}; {hint}".rstrip("; "))
    return wanted == "json"


class JsonLines(logging.Formatter):
    """Formats a record as a JSON object on one line, with its traceback and with control characters escaped.

    A record may have the attribute ``fields``, a function that returns more fields. They replace those of the record.
    """

    def __init__(self, *_: object, **__: object) -> None:
        """Take what Celery passes to a formatter, which decides nothing here."""
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Format the record and its traceback."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.processName,
            "pid": record.process,
            "message": record.getMessage().strip(),
            **_task(record.args),
        }
        if record.exc_info and record.exc_info[1] is not None:
            kind, error, _ = record.exc_info
            event["error"] = {"type": type(error).__name__, "message": str(error)}
            event["traceback"] = "".join(traceback.format_exception(kind, error, record.exc_info[2]))
        if fields := getattr(record, "fields", None):
            event |= fields()
        return escaped_json(json.dumps(event, ensure_ascii=False, default=str))


def _task(arguments: object) -> dict[str, str]:
    """Return the task that one of Celery's own lines is about."""
    if not isinstance(arguments, Mapping):
        return {}
    return {
        field: value
        for field, name in (("task", "name"), ("task_id", "id"))
        if isinstance(value := arguments.get(name), str)
    }
