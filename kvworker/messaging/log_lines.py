"""Log lines that nothing from outside can forge, and Celery's logging with such lines."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from celery.app.log import Logging, TaskFormatter
from celery.utils.log import ColorFormatter

from kvworker.messaging.json_log import JsonLines, is_json_wanted
from kvworker.model import escaped, escaped_lines


class EscapedLines(logging.Formatter):
    """Formats a record as one line, and its traceback as indented lines, with control characters escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name in logging
        """Format the record without its traceback."""
        return escaped(super().formatMessage(record).rstrip())

    def format(self, record: logging.LogRecord) -> str:
        """Format the record and its traceback."""
        if record.args and isinstance(record.msg, str) and "\n" in record.msg:
            # Some of Celery's own messages have line breaks, which mean nothing else than a space.
            record = copy.copy(record)
            record.msg = " ".join(record.msg.split())
        return escaped_lines(super().format(record))


# Celery's classes come first: they call ours, and then colour what it returns.
class _WorkerLines(ColorFormatter, EscapedLines):
    pass


class _TaskLines(TaskFormatter, EscapedLines):
    pass


_FORMATTERS: Final[Mapping[type, type]] = {ColorFormatter: _WorkerLines, TaskFormatter: _TaskLines}


class ErrorsByType(logging.Filter):
    """Replaces an error in a record's arguments by its type, and drops its traceback.

    Celery logs the error of a chord whose task failed. The task may be the host program's, and its error may quote
    private data.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record if an error is among its arguments, and let it pass."""
        arguments = record.args if isinstance(record.args, tuple) else ()
        if any(isinstance(each, BaseException) for each in arguments):
            record.args = tuple(_type_of(each) if isinstance(each, BaseException) else each for each in arguments)
            record.exc_info = None
        return True


def _type_of(error: BaseException) -> str:
    cause = error.__cause__
    return type(error).__name__ if cause is None else f"{type(error).__name__} from {_type_of(cause)}"


class EscapedLogging(Logging):
    """Celery's logging of one application, with our formatters in place of Celery's."""

    def setup_handlers(self, *arguments: Any, formatter: type = ColorFormatter, **options: Any) -> logging.Logger:
        """Give a logger its handler, unless the program has set one up."""
        formatter = JsonLines if is_json_wanted(os.environ) else _FORMATTERS.get(formatter, formatter)
        logger: logging.Logger = super().setup_handlers(*arguments, formatter=formatter, **options)
        return logger
