"""The check of a caller's timeout."""

from __future__ import annotations

import math
import threading

from kvworker.errors import InvalidRequestError


def check_timeout(timeout: object, default_seconds: float) -> float:
    """Return the timeout of a call in seconds, cut to the longest time for which a thread can wait (centuries).

    Args:
        timeout: The caller's timeout. None means the default.
        default_seconds: Returned unchanged for None.

    Raises:
        InvalidRequestError: The timeout is not a finite number above 0.
    """
    if timeout is None:
        return default_seconds
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
        raise InvalidRequestError(f"timeout must be a finite number of seconds above 0, not {timeout!r}")
    return float(min(timeout, threading.TIMEOUT_MAX))
