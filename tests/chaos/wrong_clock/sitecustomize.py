"""Python runs this at its start: a clock that is off by CLOCK_OFF_SECONDS, for the process that has it on its path."""

from __future__ import annotations

import datetime
import os
import time
from datetime import datetime as _TrueDatetime  # noqa: N812 - a name that is not replaced
from functools import partial
from typing import Any

_OFF_SECONDS = int(os.environ.get("CLOCK_OFF_SECONDS", "0"))
_true_time, _true_time_ns = time.time, time.time_ns


class _AnyDatetime(type):
    """Whatever the true class makes is one of the wrong clock's too."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _TrueDatetime)


class _WrongDatetime(_TrueDatetime, metaclass=_AnyDatetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _TrueDatetime.fromtimestamp(time.time(), tz)

    @classmethod
    def utcnow(cls) -> Any:
        return _TrueDatetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Any:
        return _TrueDatetime.fromtimestamp(time.time())


def _time() -> float:
    return _true_time() + _OFF_SECONDS


def _time_ns() -> int:
    return _true_time_ns() + _OFF_SECONDS * 10**9


if _OFF_SECONDS:
    # Unlike functions, these do not become methods where a class takes them for its own.
    time.time, time.time_ns = partial(_time), partial(_time_ns)
    datetime.datetime = _WrongDatetime  # type: ignore[misc]
