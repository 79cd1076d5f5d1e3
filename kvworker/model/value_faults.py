"""Says what JSON cannot hold in a value, and what to write instead. Names types alone: the rest may be a secret."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

#: The advice for an object, by its type. The first type that fits counts.
_INSTEAD: Final[tuple[tuple[tuple[type, ...], str], ...]] = (
    ((Enum,), "its .value"),
    ((tuple, set, frozenset), "a list: list(...)"),
    ((bytes, bytearray, memoryview), "text, such as base64"),
    ((date, time), "text: .isoformat()"),
    ((Decimal,), "text, str(...), or a float"),
    ((UUID, PurePath), "text: str(...)"),
    ((Mapping,), "a dict: dict(...)"),
)
#: Python writes no integer of more than 4300 digits.
_MAX_BITS: Final = 14_285
ALLOWED_TYPES: Final = "only None, bool, int, float, str, list and dict with string keys"


def describe_fault(value: object) -> str:
    """Describe the first part of a value that JSON has no equal for; "" if there is none to be seen."""
    parts, seen = [value], set[int]()
    while parts:
        part = parts.pop()
        if fault := _fault(part):
            return fault
        if isinstance(part, list | dict) and id(part) not in seen:
            seen.add(id(part))
            parts.extend(reversed(list(part.values()) if isinstance(part, dict) else part))
    return ""


def _fault(part: Any) -> str:
    if isinstance(part, dict):
        kinds = [type(key).__name__ for key in part if not isinstance(key, str)]
        return f"a dict in it has a key of type {kinds[0]}; JSON's keys are strings: use str(key)" if kinds else ""
    if isinstance(part, float):
        return "" if math.isfinite(part) else "it holds NaN or Infinity; pass None or a string instead"
    if isinstance(part, int) and part.bit_length() > _MAX_BITS:
        return "it holds an integer of thousands of digits; pass it as text"
    if isinstance(part, str | int | list | None):
        return ""
    advice = next((f"pass {text}" for types, text in _INSTEAD if isinstance(part, types)), f"use {ALLOWED_TYPES}")
    return f"it holds an object of type {type(part).__name__}; {advice}"
