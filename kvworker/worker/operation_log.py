"""One line in the log for each operation: its task, its time, and the names that it used. No line holds a value."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from celery.utils.log import get_logger

from kvworker.errors import KVStoreError
from kvworker.model import escaped
from kvworker.wording import counted

if TYPE_CHECKING:
    from kvworker.messaging.wire import Request
    from kvworker.tools import Tool

logger: logging.Logger = get_logger(__name__)

#: A batch may have 1000 keys, too many to read in a line.
_MAX_KEYS: Final = 8


class CelerysLines(logging.Filter):
    """Drops the line that Celery logs when one of these tasks ends: it says less than ours.

    Args:
        tasks: The names of the tasks that log for themselves.
    """

    def __init__(self, tasks: frozenset[str]) -> None:
        super().__init__()
        self._tasks = tasks

    def filter(self, record: logging.LogRecord) -> bool:
        """Return false for a line about one of the tasks. Warnings and errors stay."""
        if record.levelno > logging.INFO or not isinstance(record.args, Mapping):
            return True
        return record.args.get("name") not in self._tasks


def is_logging() -> bool:
    """Tell whether operations are logged."""
    return logger.isEnabledFor(logging.INFO)


def log_success(request: Request, task_id: str, began: float) -> None:
    """Log an operation that was applied; ``began`` is its start by the monotonic clock."""
    seconds = time.monotonic() - began
    logger.info(
        "Task %s[%s] succeeded in %.4fs: %s", request.tool.task_name, escaped(task_id), seconds, _names(request)
    )


def log_error(tool: Tool, request: Request | None, task_id: str, error: KVStoreError) -> None:
    """Log an operation that raised an error. ``request`` is None if the message was not admitted."""
    names = f"{_names(request)}: " if request else ""
    shown = f"{type(error).__name__}: {names}{escaped(str(error))}"
    logger.info("Task %s[%s] raised %s", tool.task_name, escaped(task_id), shown)


def _names(request: Request) -> str:
    return ", ".join(_each_name(request)) or "the whole store"


def _each_name(request: Request) -> Iterator[str]:
    """Yield the names in a request, each with its kind. Control characters in them are escaped."""
    arguments: Any = request.arguments
    if request.persona:
        yield f"persona {request.persona!r}"
    for name in ("namespace", "key", "prefix"):
        if arguments.get(name):
            yield f"{name} {arguments[name]!r}"
    if operations := arguments.get("operations"):
        more = ", ..." if len(operations) > _MAX_KEYS else ""
        shown = ", ".join(repr(operation["key"]) for operation in operations[:_MAX_KEYS])
        yield f"{counted(len(operations), 'key')}: {shown}{more}"
