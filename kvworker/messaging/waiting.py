"""The header ``kvworker``, which tells a worker how long a message may wait, and since when it waits.

It holds ``deadline``; ``half_time``, when half of the timeout has passed; and ``operation_id``, if it is not the task
id of a message that was never sent before. Times are in seconds since the epoch.

A message without a timeout, such as one of a chain or of beat, has ``sent`` instead: the time at which it was sent, by
its sender's clock.
"""

from __future__ import annotations

from typing import Any, TypeGuard

#: A message that says it has waited for longer does not tell the truth.
_MAX_WAIT_SECONDS = 86_400.0
#: A larger number is not a time, and may be too large for arithmetic.
_END_OF_TIME = 2**40


def waiting_header(deadline: float, timeout_seconds: float, operation_id: str = "") -> dict[str, Any]:
    """Make the header that tells a worker how long a message may wait.

    Args:
        deadline: When the operation may no longer start, in seconds since the epoch.
        timeout_seconds: The time between the call and the deadline.
        operation_id: The caller's idempotency key of a write: another message may have applied it.
    """
    header = {"deadline": deadline, "half_time": deadline - timeout_seconds / 2}
    return {**header, "operation_id": operation_id} if operation_id else header


def has_times(header: object) -> bool:
    """Tell whether a message's header holds the two times. It may come from anyone."""
    return isinstance(header, dict) and is_time(header.get("deadline")) and is_time(header.get("half_time"))


def is_time(value: object) -> TypeGuard[float]:
    """Tell whether this is a time in seconds since the epoch, as far as that can be told."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < _END_OF_TIME


def waited_seconds(header: Any, now: float) -> float | None:
    """Return how long ago the call was made. None if the header does not tell, or not credibly.

    Args:
        header: The message's header ``kvworker``, as it came.
        now: Seconds since the epoch by the clock of deadlines.
    """
    if not has_times(header):
        return None
    seconds = now - (2 * header["half_time"] - header["deadline"])
    return max(0.0, seconds) if abs(seconds) <= _MAX_WAIT_SECONDS else None
