"""One clock for deadlines: that of the results' server, which every caller and every worker can reach.

A machine's own clock may be wrong by an hour unnoticed. If a caller set its deadlines by such a clock, all its
operations would expire. A worker with such a clock would refuse every operation, or start operations long after their
callers have given up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

#: A comparison with the server is valid for this long.
COMPARED_SECONDS = 20.0
#: Slower comparisons are discarded: the error can be half the round trip.
_MAX_ROUND_TRIP_SECONDS = 1.0
#: A change of the difference by more than this is logged.
_NOTABLE_SECONDS = 2.0


class ServerClock:
    """This machine's clock, corrected by its difference from a server's clock at their last comparison.

    Until the first comparison succeeds, the clock is not corrected.

    Args:
        read_server: Returns the server's time, in seconds since the epoch.

    Attributes:
        ahead: The seconds by which the server's clock is ahead of this machine's.
    """

    def __init__(self, read_server: Callable[[], float]) -> None:
        self._read_server = read_server
        self._compare_at = 0.0
        self.ahead = 0.0

    def now(self) -> float:
        """Return seconds since the epoch by the server's clock."""
        return time.time() + self.ahead

    def keep(self) -> None:
        """Compare with the server if the last comparison is no longer valid. Raises nothing."""
        if time.monotonic() >= self._compare_at:
            self.compare()

    def compare(self) -> None:
        """Compare with the server now. Raises nothing: a failed comparison keeps the last one."""
        self._compare_at = time.monotonic() + COMPARED_SECONDS
        before, began = time.time(), time.monotonic()
        try:
            server_now = self._read_server()
        except Exception as error:  # noqa: BLE001 - no failure may stop the caller
            logger.info("the server's clock could not be read: %s", type(error).__name__)
            return
        round_trip = time.monotonic() - began
        if round_trip > _MAX_ROUND_TRIP_SECONDS:
            return
        ahead = server_now - (before + round_trip / 2)
        if abs(ahead - self.ahead) > _NOTABLE_SECONDS:
            logger.warning("this machine's clock is %.1f s off the results' server's, which deadlines go by", -ahead)
        self.ahead = ahead
