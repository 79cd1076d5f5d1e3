"""The lines of our workers' logs. The log of a real worker is in ``acceptance/test_hostile_messages.py``."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from celery import Celery
from celery.app.log import TaskFormatter
from celery.utils.log import ColorFormatter

from kvworker.messaging.log_lines import ErrorsByType, EscapedLogging

_FORGED = "x\n[2026-01-01 00:00:00,000: ERROR/MainProcess] forged\x1b[2J"


def fail() -> None:
    raise ValueError(_FORGED)


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(params=[ColorFormatter, TaskFormatter])
def logger(request: pytest.FixtureRequest, out: io.StringIO) -> Iterator[logging.Logger]:
    logger = logging.Logger("test")
    with Celery(set_as_current=False) as app:
        log = EscapedLogging(app)
        yield log.setup_handlers(logger, out, "%(levelname)s %(message)s", colorize=False, formatter=request.param)


def test_a_record_is_one_line(logger: logging.Logger, out: io.StringIO) -> None:
    logger.error("id %s", _FORGED)
    logger.error(_FORGED)
    first, second = out.getvalue().splitlines()
    assert first == r"ERROR id x\n[2026-01-01 00:00:00,000: ERROR/MainProcess] forged\x1b[2J"
    assert second == first.replace("id ", "")


def test_line_breaks_of_a_message_itself_are_spaces(logger: logging.Logger, out: io.StringIO) -> None:
    logger.error("cannot connect to %s.\n%s\n", "a\nb", "again")
    logger.warning("%s", "a warning\n")
    assert out.getvalue() == "ERROR cannot connect to a\\nb. again\nWARNING a warning\n"


def test_the_lines_of_a_traceback_are_indented_and_escaped(logger: logging.Logger, out: io.StringIO) -> None:
    try:
        fail()
    except ValueError:
        logger.exception("failed")
    first, *others = out.getvalue().splitlines()
    assert first == "ERROR failed"
    assert others[0] == "  Traceback (most recent call last):"
    assert r"  [2026-01-01 00:00:00,000: ERROR/MainProcess] forged\x1b[2J" in others
    assert all(line.startswith("  ") for line in others)


def test_colours_stay(out: io.StringIO) -> None:
    with Celery(set_as_current=False) as app:
        logger = EscapedLogging(app).setup_handlers(logging.Logger("test"), out, "%(message)s", colorize=True)
    logger.error("\x1b[2J")
    assert out.getvalue().startswith("\x1b[")
    assert r"\x1b[2J" in out.getvalue()
    assert "\x1b[2J" not in out.getvalue()


def test_an_error_is_named_by_its_type_and_those_of_its_causes(logger: logging.Logger, out: io.StringIO) -> None:
    logger.addFilter(ErrorsByType())
    try:
        try:
            fail()
        except ValueError as cause:
            raise KeyError(str(cause)) from cause
    except KeyError as error:
        logger.error("Chord %r raised: %r", "id", error, exc_info=True)
    assert out.getvalue() == "ERROR Chord 'id' raised: 'KeyError from ValueError'\n"


def test_a_record_without_an_error_in_its_arguments_keeps_its_traceback(
    logger: logging.Logger, out: io.StringIO
) -> None:
    logger.addFilter(ErrorsByType())
    try:
        fail()
    except ValueError:
        logger.warning("Failed operation %s. Retrying %s more times.", "_set", 3, exc_info=True)
    first, second, *_ = out.getvalue().splitlines()
    assert (first, second) == (
        "WARNING Failed operation _set. Retrying 3 more times.",
        "  Traceback (most recent call last):",
    )
