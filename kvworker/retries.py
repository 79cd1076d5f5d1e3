"""The pauses between attempts, everywhere in the package. Imports nothing from it."""

from __future__ import annotations

from typing import Final

from tenacity import wait_random, wait_random_exponential
from tenacity.wait import wait_base

FIRST_PAUSE_SECONDS: Final = 0.05
MAX_PAUSE_SECONDS: Final = 1.0

#: For ``tenacity.Retrying(wait=BACKOFF, …)``. Pauses are random, so that processes that failed together do not retry
#: together. The upper bound doubles from the first pause to the longest.
BACKOFF: Final[wait_base] = wait_random_exponential(multiplier=FIRST_PAUSE_SECONDS, max=MAX_PAUSE_SECONDS)

#: For conflicts between transactions. The other transaction ends within milliseconds, so pauses need not grow.
CONFLICT_PAUSE: Final[wait_base] = wait_random(0, FIRST_PAUSE_SECONDS)
