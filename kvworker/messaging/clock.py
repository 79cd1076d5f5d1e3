"""One clock for deadlines: the one of the results' server, which every caller and every worker reaches.

A machine's own clock may be wrong by an hour without anybody noticing. A caller that sets its deadlines by such a
clock would be told that all its operations expired; a worker would refuse them all, or start them long after
their callers have gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

#: How long a comparison with the server holds.
COMPARED_SECONDS = 20.0
#: Of a comparison that took longer, half of that may be wrong, and the one before is kept.
_LONGEST_SECONDS = 1.0
#: What is worth a line in the log.
_NOTABLE_SECONDS = 2.0


class ServerClock:
    """This machine's clock, corrected by how much a server's differed when they were last compared.

    ``read_server`` gives the server's time, in seconds since the epoch. Until it has answered once, this machine's
    clock is taken as it is.
    """

    def __init__(self, read_server: Callable[[], float]) -> None:
        self._read_server = read_server
        self._compare_at = 0.0
        #: By how many seconds the server's clock was ahead.
        self.ahead = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time() + self.ahead

    def keep(self) -> None:
        """Compare, if the last comparison does not hold any more. Raises nothing; what failed is tried later."""
        if time.monotonic() >= self._compare_at:
            self.compare()

    def compare(self) -> None:
        """Compare with the server now. Raises nothing."""
        self._compare_at = time.monotonic() + COMPARED_SECONDS
        before, began = time.time(), time.monotonic()
        try:
            there = self._read_server()
        except Exception as error:  # noqa: BLE001 - whatever it is, this machine's clock goes on
            logger.info("the server's clock could not be read: %s", type(error).__name__)
            return
        took = time.monotonic() - began
        if took > _LONGEST_SECONDS:
            return
        ahead = there - (before + took / 2)
        if abs(ahead - self.ahead) > _NOTABLE_SECONDS:
            logger.warning(
                "this machine's clock is %.1f s off the results' server's; deadlines are by that one", -ahead
            )
        self.ahead = ahead
