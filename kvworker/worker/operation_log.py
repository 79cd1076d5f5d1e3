"""One line in the log for each operation: its task, its time, and the names that it used. No line holds a value."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from celery.utils.log import get_logger

from kvworker.errors import KVStoreError
from kvworker.model import escaped
from kvworker.wording import counted

if TYPE_CHECKING:
    from kvworker.messaging.observer import MessageReport, OperationEnd
    from kvworker.messaging.wire import Request

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


def log_operations(report: MessageReport) -> None:
    """Log the operations of a message. Celery logs an error that is none of ours, with its traceback."""
    for operation in report.operations:
        if operation.error is None or isinstance(operation.error, KVStoreError):
            _log(operation, report)


def _log(operation: OperationEnd, report: MessageReport) -> None:
    task, names = f"{operation.tool.task_name}[{escaped(operation.task_id)}]", _names(operation.request)
    extra = {"fields": partial(_fields, operation, report)}
    if operation.error is None:
        logger.info("Task %s succeeded in %.4fs: %s", task, report.seconds, names, extra=extra)
    else:
        name, text = type(operation.error).__name__, escaped(str(operation.error))
        logger.info("Task %s raised %s: %s%s", task, name, f"{names}: " if names else "", text, extra=extra)


def _fields(operation: OperationEnd, report: MessageReport) -> dict[str, Any]:
    """Return what a line says, as the fields of a JSON object. A field that says nothing about it is absent."""
    tool, outcome = operation.tool, operation.outcome
    fields: dict[str, Any] = {
        "message": f"{tool.name} {outcome.name}",
        "tool": tool.name,
        "task_id": operation.task_id,
        "outcome": outcome.name,
        "reason": outcome.reason,
        "milliseconds": round(report.seconds * 1000, 3),
        "redelivered": report.redelivered,
        "coalesced": report.coalesced,
        **(_named(operation.request) if operation.request else {}),
    }
    if report.queue_seconds is not None:
        fields["queue_milliseconds"] = round(report.queue_seconds * 1000, 3)
    if operation.error is not None:
        fields["error"] = {"type": type(operation.error).__name__, "message": str(operation.error)}
    return {
        name: value for name, value in fields.items() if value not in ("", None, False, 0) or name == "milliseconds"
    }


def _named(request: Request) -> dict[str, Any]:
    arguments: Any = request.arguments
    steps = arguments.get("operations") or ()
    return {
        **{name: arguments.get(name) for name in ("namespace", "key", "prefix")},
        "keys": [step["key"] for step in steps[:_MAX_KEYS]] or None,
        "key_count": len(steps) or None,
        "operation_id": request.operation_id if request.tool.writes else None,
        "persona": request.persona,
    }


def _names(request: Request | None) -> str:
    return ", ".join(_each_name(request)) or "the whole store" if request else ""


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
