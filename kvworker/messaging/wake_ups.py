"""Wake-ups: a worker that gave a permit back publishes it, so that those who wait for one need not keep asking.

A wake-up is a hint without content. Whoever can publish on the results' server can send one, and any may be lost. A
waiter therefore asks the store after it, and asks now and then without it.

The channels have the names of results' keys, so that the rights on results suffice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from kvworker.model import BatchResult, OperationResult, ReleasePermitResult

#: The beginning of the channels' names, where a task id is in a result's.
FREED_PERMITS: Final = "kvworker.freed."


def freed_name(namespace: str, key: str) -> str:
    """Return the name of a semaphore's channel, which does not show the semaphore's name."""
    digest = hashlib.sha256(f"{len(namespace)}:{namespace}{key}".encode()).hexdigest()
    return FREED_PERMITS + digest[:32]


def freed_by(result: OperationResult) -> Iterator[str]:
    """Yield the names of the channels to tell after an operation with this result."""
    for each in result.results if isinstance(result, BatchResult) else (result,):
        if isinstance(each, ReleasePermitResult) and each.released:
            yield freed_name(each.namespace, each.key)
