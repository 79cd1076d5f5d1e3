"""What the callers of durable steps do: which key they call next, in which form, and with which arguments."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

#: The share of calls with arguments that are not those of the key.
_WRONG_SHARE: Final = 0.05
#: The oldest keys that are called again, in leases.
_LEASES_BACK: Final = 3.0
#: The share of functions that take ``slow_seconds`` before or after their effect.
_SLOW_SHARE: Final = 0.2
_MOST_PAUSE_SECONDS: Final = 0.1

#: The first word of a key, which says how its step ends: its callers ask the recorder about an unknown step, they leave
#: it unknown, or its function raises a declared exception once its effect has happened.
ASKS: Final = "asks"
LEAVES: Final = "leaves"
DECLINES: Final = "declines"
_KINDS: Final[Sequence[str]] = (ASKS, LEAVES, ASKS, DECLINES)


@dataclass(frozen=True)
class Plan:
    """What all callers share: the namespace, the lease, and how fast they go through the keys.

    Every second ``keys_per_second`` keys are new. Most calls take one of the newest, and some take one whose lease has
    run out if its holder was killed. Some functions take ``slow_seconds``.
    """

    namespace: str
    lease_seconds: float
    began: float
    slow_seconds: float
    keys_per_second: float = 8.0

    def next_key(self, rng: Random) -> str:
        """Choose a key that other callers choose at the same time."""
        newest_seconds = time.monotonic() - self.began
        age_seconds = _LEASES_BACK * self.lease_seconds * rng.random() ** 2
        number = max(0, int((newest_seconds - age_seconds) * self.keys_per_second))
        return f"{_KINDS[number % len(_KINDS)]} {number}"

    def next_arguments(self, key: str, rng: Random) -> str:
        """Choose arguments: those of the key, or now and then others."""
        return "wrong" if rng.random() < _WRONG_SHARE else f"cents of {key}"

    def effect_pauses(self, rng: Random) -> tuple[float, float]:
        """Choose the time before and after an effect, so that faults find functions everywhere."""
        before, after = rng.uniform(0, _MOST_PAUSE_SECONDS), rng.uniform(0, _MOST_PAUSE_SECONDS)
        if rng.random() < _SLOW_SHARE:
            return rng.choice(((self.slow_seconds, after), (before, self.slow_seconds)))
        return before, after
