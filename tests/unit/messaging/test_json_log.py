"""Log lines as JSON. Those of a real worker are in ``acceptance/test_json_log.py``."""

from __future__ import annotations

import io
import json
import logging
from datetime import datetime
from typing import Any

import pytest
from celery import Celery
from celery.utils.log import ColorFormatter

from kvworker.errors import ConfigurationError
from kvworker.messaging.json_log import is_json_wanted
from kvworker.messaging.log_lines import EscapedLogging

_FORGED = 'x\n{"level": "ERROR"}\x1b[2J\x7f\u202e\ud800'


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch, out: io.StringIO) -> logging.Logger:
    monkeypatch.setenv("KVWORKER_LOG_FORMAT", "json")
    with Celery(set_as_current=False) as app:
        logging_ = EscapedLogging(app)
        return logging_.setup_handlers(
            logging.Logger("kvworker.test"), out, "%(message)s", colorize=True, formatter=ColorFormatter
        )


def fail() -> None:
    raise ValueError(_FORGED)


def only_event(out: io.StringIO) -> dict[str, Any]:
    (line,) = out.getvalue().splitlines()
    assert line.isprintable()
    event = json.loads(line)
    assert isinstance(event, dict)
    return event


def test_a_record_is_an_object_on_one_line(logger: logging.Logger, out: io.StringIO) -> None:
    logger.warning("id %s", _FORGED)
    event = only_event(out)
    assert event["message"] == f"id {_FORGED}"
    assert (event["level"], event["logger"], event["process"]) == ("WARNING", "kvworker.test", "MainProcess")
    assert datetime.fromisoformat(event["time"]).utcoffset() is not None


def test_a_traceback_stays_in_its_object(logger: logging.Logger, out: io.StringIO) -> None:
    try:
        fail()
    except ValueError:
        logger.exception("failed")
    event = only_event(out)
    assert event["error"] == {"type": "ValueError", "message": _FORGED}
    assert event["traceback"].startswith("Traceback (most recent call last):\n")
    assert event["traceback"].endswith("\n")


def test_a_line_of_celery_about_a_task_names_it(logger: logging.Logger, out: io.StringIO) -> None:
    logger.error(
        "Task %(name)s[%(id)s] %(description)s", {"name": "t", "id": "i", "description": "d", "args": "secret"}
    )
    event = only_event(out)
    assert (event["task"], event["task_id"], event["message"]) == ("t", "i", "Task t[i] d")
    assert "secret" not in out.getvalue()


def test_fields_of_a_record_replace_its_own(logger: logging.Logger, out: io.StringIO) -> None:
    logger.warning("as text", extra={"fields": lambda: {"message": "kv_set applied", "tool": "kv_set"}})
    event = only_event(out)
    assert (event["message"], event["tool"]) == ("kv_set applied", "kv_set")


def test_a_format_that_does_not_exist_is_refused() -> None:
    assert is_json_wanted({"KVWORKER_LOG_FORMAT": "json"})
    assert not is_json_wanted({"KVWORKER_LOG_FORMAT": " "})
    with pytest.raises(ConfigurationError, match=r"KVWORKER_LOG_FORMAT should be text or json"):
        is_json_wanted({"KVWORKER_LOG_FORMAT": "jsonl"})
