"""Splits a ledger whose writers meet, so that each writer finds an unlocked row (see ledgers.sql)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvworker.adapters.sql.dialect import Dialect

#: Rows besides the first one: this many more writers of one ledger can run in parallel.
SHARES: Final = 15
#: Smaller shares are not worth a row. This close to its quota, a ledger's writers take turns.
MIN_SHARE_BYTES: Final = 512
#: A process leaves a ledger alone for this time after it has examined it.
_PAUSE_SECONDS: Final = 0.05
_MAX_REMEMBERED: Final = 1000


class LedgerSplitter:
    """Splits the ledgers of a database, each at most every 50 ms."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._rest_until: dict[str, float] = {}

    def split(self, connection: Any, namespace: str, configured_bytes: int | None) -> None:
        """Divide part of the quota that a ledger has left among its other rows. On an error nothing changes.

        Args:
            connection: The driver's connection.
            namespace: The ledger.
            configured_bytes: The configured quota. A ledger without a quota is not split.
        """
        now = time.monotonic()
        if configured_bytes is None or self._rest_until.get(namespace, now) > now:
            return
        if len(self._rest_until) >= _MAX_REMEMBERED:
            self._rest_until.clear()
        self._rest_until[namespace] = now + _PAUSE_SECONDS
        # The write that met another one is complete, and must not fail because of this.
        with contextlib.suppress(*self._dialect.driver_errors), self._dialect.transaction(connection):
            self._split(connection, namespace, configured_bytes)

    def _split(self, connection: Any, namespace: str, configured_bytes: int) -> None:
        name = {"namespace": namespace}
        # The reply to the write waits for this.
        self._dialect.fetch_one(connection, "bound_lock_waits", {})
        ledger = self._dialect.fetch_one(connection, "lock_ledger", name)
        if ledger is None:
            return
        shares = self._dialect.run(connection, "lock_free_shares", name).fetchall()
        params = _plan_shares(ledger, shares, configured_bytes)
        if params is not None:
            self._dialect.run(connection, "fill_shares" if shares else "make_shares", {**name, **params})


def _plan_shares(ledger: Any, shares: Sequence[Any], configured_bytes: int) -> Mapping[str, Any] | None:
    """Return the parameters that split a ledger or fill its free shares; None if there is nothing to split."""
    used_bytes, _, own_quota, lent_bytes = ledger
    limit_bytes, lent_under = (configured_bytes, configured_bytes) if own_quota is None else (own_quota, None)
    slack_bytes = sum(limit - used for _, used, limit, _ in shares)
    # Half stays in the first row, for values that are larger than a share.
    share_bytes = (limit_bytes - used_bytes - lent_bytes + slack_bytes) // (2 * SHARES)
    has_room = any(limit - used >= share_bytes and under == lent_under for _, used, limit, under in shares)
    if share_bytes < MIN_SHARE_BYTES or has_room:
        return None
    # Numbers go as text: psycopg would send integers of different sizes as different types, and prepare for each.
    return {
        "share_bytes": str(share_bytes),
        "limit_bytes": str(limit_bytes),
        "lent_under_bytes": None if lent_under is None else str(lent_under),
        "shares": SHARES,
        "slots": [slot for slot, *_ in shares],
        "lent_bytes": str(share_bytes * len(shares) - slack_bytes),
    }
