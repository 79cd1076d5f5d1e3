"""What the holders of leases and of durable steps share: names, the time to wait, and failures that pass."""

from __future__ import annotations

import math
import os
import socket
from typing import Final

from kvworker.errors import (
    InvalidRequestError,
    OperationExpiredError,
    OperationNotSentError,
    QueueUnavailableError,
    UnknownOutcomeError,
    UnsupportedMessageError,
)
from kvworker.model import new_operation_id
from kvworker.model.quoting import shown_argument

_NAME_CHARACTERS: Final = 60

#: The failures of a call after which another attempt may succeed. During an upgrade, an older worker that does not know
#: the operation may take the message first.
PASSING_FAILURES: Final = (
    UnknownOutcomeError,
    QueueUnavailableError,
    OperationNotSentError,
    OperationExpiredError,
    UnsupportedMessageError,
)


def new_holder(label: str = "") -> str:
    """Return a name that no other holder has, and that tells an operator where to look.

    Args:
        label: What the holder does, such as the name of its function.
    """
    host = socket.gethostname().encode("ascii", "replace").decode()[:_NAME_CHARACTERS]
    place = f"{host}:{os.getpid()}:{new_operation_id()}"
    return f"{label[:_NAME_CHARACTERS]} on {place}" if label else place


def check_wait(wait_seconds: object) -> float:
    """Return the longest wait for another holder, in seconds.

    Raises:
        InvalidRequestError: It is not a finite number of at least 0.
    """
    is_number = isinstance(wait_seconds, int | float) and not isinstance(wait_seconds, bool)
    if not is_number or not 0 <= wait_seconds < math.inf:  # type: ignore[operator]
        raise InvalidRequestError(
            f"wait_seconds must be a finite number of at least 0, not {shown_argument(wait_seconds)}"
        )
    return float(wait_seconds)  # type: ignore[arg-type]
