"""Injects a scenario's fault again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: For how much longer than asked a scenario may go on until it has seen what it needs.
_MOST_EXTRA_SECONDS: Final = 60.0


def inject(
    fault: Callable[[], object], pause: Callable[[], object], lacks: Callable[[], bool], seconds: float
) -> tuple[list[float], list[str]]:
    """Inject a fault again and again, with pauses, at least once.

    Args:
        fault: Injects it.
        pause: Waits for a random time.
        lacks: Tells whether the scenario has not seen yet what it needs.
        seconds: How long to go on.

    Returns:
        The times at which the faults ended, and a problem if one could not be injected.
    """
    end_at = time.monotonic() + seconds
    ended: list[float] = []
    pause()
    while not ended or time.monotonic() < end_at or (time.monotonic() < end_at + _MOST_EXTRA_SECONDS and lacks()):
        try:
            fault()
        except Exception as error:  # noqa: BLE001 - the servers must still be healed and the history checked
            return ended, [f"the fault failed: {type(error).__name__}: {error}"]
        ended.append(time.monotonic())
        pause()
    return ended, []
