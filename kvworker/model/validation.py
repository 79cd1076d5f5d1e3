"""The checks of arguments, and values as canonical JSON text. What is behind them trusts what they passed."""

from __future__ import annotations

import json
import math
import os
import time
from typing import TypeAlias

from kvworker.errors import (
    InvalidKeyError,
    InvalidRequestError,
    InvalidTTLError,
    ValueSerializationError,
)

JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"

MAX_NAMESPACE_BYTES = 255
MAX_KEY_BYTES = 1024
MAX_OPERATION_ID_BYTES = 255
#: Levels of lists and objects in a value. Python's JSON decoder recurses once a level and stops near 1000.
MAX_VALUE_DEPTH = 256
#: A longer TTL is cut to this: about 300 years, well before PostgreSQL's timestamps end.
MAX_TTL_SECONDS = 1e10
#: Steps of one batch.
MAX_BATCH_STEPS = 1000
#: How many rows one transaction of a sweep or a prune may have.
MAX_BATCH_ROWS = 1_000_000
#: Bytes of values that one batch reads, or one page of a listing holds (but for its first entry).
MAX_READ_BYTES = 4 * 1024 * 1024
#: Rows of one page of a listing.
MAX_PAGE_ROWS = 1000
DEFAULT_PAGE_ROWS = 100
MAX_QUOTA_BYTES = 2**62
_MAX_SHOWN_CHARACTERS = 40
# json.dumps would make one for each call.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1


def check_namespace(namespace: object) -> str:
    """The namespace, exactly as given.

    Raises:
        InvalidKeyError: it is blank, not a string, not UTF-8, holds a NUL or is over 255 UTF-8 bytes.
    """
    return _check_name("namespace", namespace, MAX_NAMESPACE_BYTES)


def check_key(key: object) -> str:
    """The key, exactly as given.

    Raises:
        InvalidKeyError: it is blank, not a string, not UTF-8, holds a NUL or is over 1024 UTF-8 bytes.
    """
    return _check_name("key", key, MAX_KEY_BYTES)


def check_operation_id(operation_id: object) -> str:
    """The operation id, exactly as given.

    Raises:
        InvalidRequestError: it is not a non-blank string of at most 255 UTF-8 bytes without NUL.
    """
    try:
        return _check_name("idempotency_key", operation_id, MAX_OPERATION_ID_BYTES)
    except InvalidKeyError as error:
        raise InvalidRequestError(*error.args) from None


def new_operation_id() -> str:
    """A fresh operation id, ordered by time as a UUIDv7 is: ids that follow each other share index pages."""
    milliseconds = (time.time_ns() // 1_000_000) & 0xFFFF_FFFF_FFFF
    random_bits = int.from_bytes(os.urandom(10)) & ~((0xF << 76) | (3 << 62))
    version_and_variant = (7 << 76) | (2 << 62)
    digits = f"{(milliseconds << 80) | version_and_variant | random_bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def check_ttl(ttl_seconds: object) -> float | None:
    """The TTL in seconds as a float of at most ``MAX_TTL_SECONDS``, or None.

    Raises:
        InvalidTTLError: it is not a finite number above 0. A bool is not a number here: ``True`` as a
            TTL is a mistake, never one second.
    """
    if ttl_seconds is None:
        return None
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int | float):
        raise InvalidTTLError(f"ttl_seconds must be a number above 0, not {_shown(ttl_seconds)}")
    if not 0 < ttl_seconds < math.inf:
        raise InvalidTTLError(
            f"ttl_seconds must be a finite number above 0 (leave it out for no expiry), not {_shown(ttl_seconds)}"
        )
    return float(min(ttl_seconds, MAX_TTL_SECONDS))


def check_touch_ttl(ttl_seconds: object) -> float:
    """The TTL that an entry is to have from now on, which there must be.

    Raises:
        InvalidTTLError: it is not a finite number above 0.
    """
    ttl = check_ttl(ttl_seconds)
    if ttl is None:
        raise InvalidTTLError("touch needs ttl_seconds; to let an entry stay for good, persist it")
    return ttl


def check_cursor(cursor: object) -> str | None:
    """The cursor of a page, which is the last name of the page before; None is the first page.

    Raises:
        InvalidRequestError: it is not a name.
    """
    return None if cursor is None else _check_name("cursor", cursor, MAX_KEY_BYTES)


def check_integer(name: str, value: object) -> int:
    """A signed 64-bit integer, such as ``delta``.

    Raises:
        InvalidRequestError: it is not an integer (a bool is not), or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError(f"{name} must be an integer, not {_shown(value)}")
    if not INT64_MIN <= value <= INT64_MAX:
        raise InvalidRequestError(f"{name} must be a signed 64-bit integer, not {_shown(value)}")
    return int(value)


def check_version(version: object) -> int | None:
    """The version that a write expects, or None for any.

    Raises:
        InvalidRequestError: it is not an integer from 1 on.
    """
    if version is None:
        return None
    if check_integer("expected_version", version) < 1:
        raise InvalidRequestError(f"expected_version must be a version that a result told, not {_shown(version)}")
    return int(version)  # type: ignore[call-overload,no-any-return]


def check_flag(name: str, value: object) -> bool:
    """A switch, such as ``if_absent``.

    Raises:
        InvalidRequestError: it is neither true nor false.
    """
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name} must be true or false, not {_shown(value)}")
    return value


def check_count(name: str, value: object, largest: int) -> int:
    """A number of rows, such as ``limit``.

    Raises:
        InvalidRequestError: it is not an integer from 1 to ``largest``.
    """
    if not 1 <= check_integer(name, value) <= largest:
        raise InvalidRequestError(f"{name} must be from 1 to {largest}, not {_shown(value)}")
    return int(value)  # type: ignore[call-overload,no-any-return]


def check_quota(quota_bytes: object) -> int | None:
    """A namespace's own quota in bytes, or None for the configured one.

    Raises:
        InvalidRequestError: it is not an integer from 1 to 2**62.
    """
    return None if quota_bytes is None else check_count("quota_bytes", quota_bytes, MAX_QUOTA_BYTES)


def check_prefix(name: str, prefix: object, max_bytes: int) -> str:
    """The beginning of names, exactly as given; an empty one is the beginning of all.

    Raises:
        InvalidKeyError: it is not a string, not UTF-8, holds a NUL or is too long.
    """
    return _check_text(name, prefix, max_bytes)


def encode_value(value: object) -> str:
    """The value as canonical JSON text: compact, key order kept, not ASCII-escaped.

    A value passes only if decoding the text gives an equal value back, so tuples, non-string keys and
    the like are refused rather than changed silently.

    Raises:
        ValueSerializationError: NaN, Infinity, a non-JSON type, a cycle, a lone surrogate, or nesting
            deeper than 256 levels.
    """
    try:
        text = _ENCODER.encode(value)
        text.encode("utf-8")
        if not isinstance(value, str | int | float | None) and json.loads(text) != value:
            raise ValueSerializationError(
                f"a {type(value).__name__} here does not come back from JSON as it went in;"
                " use only None, bool, int, float, str, list and dict with string keys"
            )
    except UnicodeEncodeError:
        raise ValueSerializationError("a string in the value holds a lone surrogate, which UTF-8 cannot hold") from None
    except RecursionError:
        raise _too_deep() from None
    except (TypeError, ValueError) as error:
        if isinstance(error, ValueSerializationError):
            raise
        raise ValueSerializationError(f"the value is not JSON: {error}") from None
    if text.count("[") + text.count("{") > MAX_VALUE_DEPTH and depth_of(value, MAX_VALUE_DEPTH) > MAX_VALUE_DEPTH:
        raise _too_deep()
    return text


def decode_value(text: str) -> JSONValue:
    """The value that ``encode_value`` made the text from."""
    value: JSONValue = json.loads(text)
    return value


def shown_name(name: object) -> str:
    """A name for a message: what is not a short text may be a value that came to the wrong place."""
    text = repr(name) if isinstance(name, str) else f"a {type(name).__name__}"
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else text[:_MAX_SHOWN_CHARACTERS] + "..."


def depth_of(value: object, enough: int) -> int:
    """How many levels of lists and objects a value has; beyond ``enough`` they are not counted on."""
    deepest, level = 0, [value]
    while deepest <= enough and (containers := [item for item in level if isinstance(item, list | tuple | dict)]):
        level = [
            child
            for container in containers
            for child in (container.values() if isinstance(container, dict) else container)
        ]
        deepest += 1
    return deepest


def _check_name(what: str, name: object, max_bytes: int) -> str:
    text = _check_text(what, name, max_bytes)
    if not text or text.isspace():
        raise InvalidKeyError(f"{what} must not be blank")
    return text


def _check_text(what: str, text: object, max_bytes: int) -> str:
    if not isinstance(text, str):
        raise InvalidKeyError(f"{what} must be a string, not {_shown(text)}")
    if "\x00" in text:
        raise InvalidKeyError(f"{what} must not hold a NUL character")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidKeyError(f"{what} holds a lone surrogate, which UTF-8 cannot hold") from None
    if size > max_bytes:
        raise InvalidKeyError(f"{what} is {size} bytes of UTF-8; at most {max_bytes} are allowed")
    return str(text)


def _too_deep() -> ValueSerializationError:
    return ValueSerializationError(f"the value is nested deeper than {MAX_VALUE_DEPTH} levels")


def _shown(value: object) -> str:
    # Python refuses to write out an integer of more than 4300 digits.
    if isinstance(value, int) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    return f"{value!r}" if isinstance(value, bool | int | float) else f"a {type(value).__name__}"
