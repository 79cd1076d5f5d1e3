"""Python runs this file at start-up if it is on the path. It shifts the process's clock by CLOCK_OFF_SECONDS."""

from __future__ import annotations

import datetime
import os
import time
from datetime import datetime as _TrueDatetime  # noqa: N812 - keeps the true class
from functools import partial
from typing import Any

_OFF_SECONDS = int(os.environ.get("CLOCK_OFF_SECONDS", "0"))
_true_time, _true_time_ns = time.time, time.time_ns


class _AnyDatetime(type):
    """Makes every true datetime an instance of the wrong class too."""

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
    # If a class has these as attributes, partials do not become methods, as functions would.
    time.time, time.time_ns = partial(_time), partial(_time_ns)
    datetime.datetime = _WrongDatetime  # type: ignore[misc]
