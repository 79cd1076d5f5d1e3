"""Tells whether an operation record can be one that a write made. ``operation_records`` says what it holds."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

from kvworker.adapters.sql.record_ids import ID_BYTES
from kvworker.adapters.sql.recorded_refusals import REFUSED
from kvworker.errors import rebuild_error
from kvworker.settings.adapters import MAX_RETENTION_SECONDS

#: A fingerprint, or the digest of a request.
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{32}|-?[0-9]{1,10}")
_NUMBER: Final = r"-?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?"
#: A written entry with its counter's value, expiry and version, each where there is one; the two numbers of a clear.
_WRITTEN: Final = re.compile(rf"(?:{_NUMBER})?(?: ?{_NUMBER})? ?(?:v[0-9]+)?")
_DELETED: Final = frozenset({"true", "false"})
#: A record's clock is read before its transaction ends, and ours may be of another moment.
_TOLERANCE_SECONDS: Final = 3600.0


def record_fault(fingerprint: object, result: object, remaining_seconds: float) -> str:
    """Describe the fault of a record, or return an empty string.

    Args:
        fingerprint: The fingerprint as stored.
        result: The result as stored.
        remaining_seconds: The time until the record expires.
    """
    if not isinstance(fingerprint, str) or not isinstance(result, str):
        return "its fingerprint or its result is not text"
    if not math.isfinite(remaining_seconds) or remaining_seconds > MAX_RETENTION_SECONDS + _TOLERANCE_SECONDS:
        return "it expires later than any retention allows, so no prune removes it"
    if fingerprint == REFUSED:
        return "" if _holds_refusals(result) else "it does not hold refusals, as its fingerprint says"
    if not _FINGERPRINT.fullmatch(fingerprint):
        return "its fingerprint is none"
    return "" if _is_result(result) else "its result has no known form"


def small_record_fault(record_id: bytes, stamp: int, expires_at: float) -> str:
    """Return what is wrong with the rest of a record since schema 0005, or an empty string.

    Args:
        record_id: The digest of the operation id.
        stamp: When the operation was recorded, in microseconds since 1970.
        expires_at: When the record expires, in seconds since 1970.
    """
    if len(record_id) != ID_BYTES:
        return f"its id has {len(record_id)} bytes instead of {ID_BYTES}, so no repetition finds it"
    return "it is kept for no time" if expires_at * 1_000_000 < stamp + 1_000_000 else ""


def _is_result(result: str) -> bool:
    if not result.startswith("["):
        return _is_step_result(result)
    items = _decoded(result)
    return isinstance(items, list) and all(_is_item(item) for item in items)


def _is_item(item: Any) -> bool:
    """Return whether it can be an item of a batch's record, or of a computed step's answer that is a list."""
    if isinstance(item, dict):
        return {"error", "shared", "args"} <= item.keys()
    return not isinstance(item, str) or _is_step_result(item) or isinstance(_decoded(item), list)


def _is_step_result(result: str) -> bool:
    if result in _DELETED or _WRITTEN.fullmatch(result):
        return True
    # The answer of a computed step.
    return result == "null" or isinstance(_decoded(result), dict)


def _holds_refusals(result: str) -> bool:
    lines = [_decoded(line) for line in result.splitlines()]
    return bool(lines) and all(
        isinstance(line, list) and len(line) == 3 and rebuild_error(str(line[1]), line[2]) is not None for line in lines
    )


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
