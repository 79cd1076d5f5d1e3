"""Checks numbers and flags of a call once. The code behind these checks trusts their results."""

from __future__ import annotations

import math
from typing import TypeGuard

from kvworker.errors import InvalidRequestError, InvalidTTLError
from kvworker.model.quoting import shown_argument

#: A longer TTL is cut to this: about 300 years, well before PostgreSQL's timestamps end.
MAX_TTL_SECONDS = 1e10
#: Steps of one batch.
MAX_BATCH_STEPS = 1000
#: Rows that one transaction of a sweep or a prune may delete.
MAX_BATCH_ROWS = 1_000_000
#: Bytes of values that one batch may read or one page of a listing may hold. A page's first entry may be larger.
MAX_READ_BYTES = 4 * 1024 * 1024
#: Bytes of a removed value that an operation's record may keep, since a replay cannot read it again.
MAX_KEPT_BYTES = 64 * 1024
#: Rows of one page of a listing.
MAX_PAGE_ROWS = 1000
DEFAULT_PAGE_ROWS = 100
MAX_QUOTA_BYTES = 2**62
INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1


def check_ttl(ttl_seconds: object) -> float | None:
    """Return the TTL in seconds, cut to ``MAX_TTL_SECONDS``. None stays None.

    Raises:
        InvalidTTLError: It is not a finite number above 0. A bool is refused: ``True`` as a TTL is a mistake,
            never one second.
    """
    if ttl_seconds is None:
        return None
    if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, int | float):
        raise InvalidTTLError(f"ttl_seconds must be a number above 0, not {shown_argument(ttl_seconds)}")
    if not 0 < ttl_seconds < math.inf:
        raise InvalidTTLError(
            "ttl_seconds must be a finite number above 0 (leave it out for no expiry), not"
            f" {shown_argument(ttl_seconds)}"
        )
    return float(min(ttl_seconds, MAX_TTL_SECONDS))


def check_touch_ttl(ttl_seconds: object) -> float:
    """Return the TTL that ``touch`` gives an entry, in seconds from now. ``touch`` requires one.

    Raises:
        InvalidTTLError: It is missing, or not a finite number above 0.
    """
    ttl = check_ttl(ttl_seconds)
    if ttl is None:
        raise InvalidTTLError("touch needs ttl_seconds; use persist to remove an entry's expiry")
    return ttl


def check_integer(name: str, value: object) -> int:
    """Return a signed 64-bit integer, such as ``delta``.

    Raises:
        InvalidRequestError: It is not an integer (a bool is not one), or it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError(f"{name} must be an integer, not {shown_argument(value)}")
    if not INT64_MIN <= value <= INT64_MAX:
        raise InvalidRequestError(f"{name} must be a signed 64-bit integer, not {shown_argument(value)}")
    return int(value)


def check_version(version: object) -> int | None:
    """Return the version that a write expects. None accepts any version.

    Raises:
        InvalidRequestError: It is not an integer of at least 1.
    """
    if version is None:
        return None
    number = check_integer("expected_version", version)
    if number < 1:
        raise InvalidRequestError(
            f"expected_version must be a version from an earlier result, not {shown_argument(version)}"
        )
    return number


def is_stored_integer(value: object, minimum: int) -> TypeGuard[int]:
    """Return whether a stored value is an integer from ``minimum`` on that a signed 64-bit one holds."""
    return type(value) is int and minimum <= value <= INT64_MAX


def check_token(token: object) -> int | None:
    """Return a permit's fencing token. None accepts any.

    Raises:
        InvalidRequestError: It is not an integer of at least 1.
    """
    if token is None:
        return None
    number = check_integer("token", token)
    if number < 1:
        raise InvalidRequestError(f"token must be the token of a permit, not {shown_argument(token)}")
    return number


def check_period(per_seconds: object) -> float:
    """Return the period of a rate limit in seconds.

    Raises:
        InvalidRequestError: It is not a finite number above 0.
    """
    is_number = isinstance(per_seconds, int | float) and not isinstance(per_seconds, bool)
    if not is_number or not 0 < per_seconds < math.inf:  # type: ignore[operator]
        raise InvalidRequestError(
            f"per_seconds must be a finite number of seconds above 0, not {shown_argument(per_seconds)}"
        )
    return float(min(per_seconds, MAX_TTL_SECONDS))  # type: ignore[call-overload]


def check_flag(name: str, value: object) -> bool:
    """Return a flag, such as ``if_absent``.

    Raises:
        InvalidRequestError: It is neither true nor false.
    """
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name} must be true or false, not {shown_argument(value)}")
    return value


def check_count(name: str, value: object, largest: int) -> int:
    """Return a number of things, such as ``limit``.

    Raises:
        InvalidRequestError: It is not an integer from 1 to ``largest``.
    """
    number = check_integer(name, value)
    if not 1 <= number <= largest:
        raise InvalidRequestError(f"{name} must be from 1 to {largest}, not {shown_argument(value)}")
    return number


def check_max_items(max_items: object) -> int | None:
    """Return the most items that a list may have. None means any number.

    Raises:
        InvalidRequestError: It is not an integer of at least 1.
    """
    return None if max_items is None else check_count("max_items", max_items, INT64_MAX)


def check_quota(quota_bytes: object) -> int | None:
    """Return a namespace's own quota in bytes. None means the configured quota.

    Raises:
        InvalidRequestError: It is not an integer from 1 to 2**62.
    """
    return None if quota_bytes is None else check_count("quota_bytes", quota_bytes, MAX_QUOTA_BYTES)
