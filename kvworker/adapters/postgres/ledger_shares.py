"""Splits a ledger whose writers meet, so that each writer finds an unlocked row (see ledgers.sql)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from kvworker.adapters.sql.dialect import Dialect
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.adapters.sql.write import Limits

#: Rows besides the first one: this many more writers of one ledger can run in parallel.
SHARES: Final = 15
#: Smaller shares are not worth a row. This close to its quota, a ledger's writers take turns.
MIN_SHARE_BYTES: Final = 512
#: The same with the entries and operation records of a share.
_MIN_SHARE: Final = (MIN_SHARE_BYTES, 1, 64)
#: The global ledger counts entries and no operation records, and limits neither.
_NO_LIMIT: Final = 2**60
#: A process leaves a ledger alone for this time after it has examined it.
_PAUSE_SECONDS: Final = 0.05
_MAX_REMEMBERED: Final = 1000


class LedgerSplitter:
    """Splits the ledgers of a database, each at most every 50 ms."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._rest_until: dict[str, float] = {}

    def split(self, connection: Any, namespace: str, limits: Limits) -> None:
        """Divide part of what a ledger has left among its other rows. On an error nothing changes.

        Args:
            connection: The driver's connection.
            namespace: The ledger. A global one without a quota is not split.
            limits: The configured quotas and limits.
        """
        now = time.monotonic()
        if (namespace == GLOBAL_LEDGER and limits.global_bytes is None) or self._rest_until.get(namespace, now) > now:
            return
        if len(self._rest_until) >= _MAX_REMEMBERED:
            self._rest_until.clear()
        self._rest_until[namespace] = now + _PAUSE_SECONDS
        # The write that met another one is complete, and must not fail because of this.
        with contextlib.suppress(*self._dialect.driver_errors), self._dialect.transaction(connection):
            self._split(connection, namespace, limits)

    def _split(self, connection: Any, namespace: str, limits: Limits) -> None:
        name = {"namespace": namespace}
        # The reply to the write waits for this.
        self._dialect.fetch_one(connection, "bound_lock_waits", {})
        ledger = self._dialect.fetch_one(connection, "lock_ledger", name)
        if ledger is None:
            return
        shares = self._dialect.run(connection, "lock_free_shares", name).fetchall()
        params = _plan_shares(_First(*ledger), [_Share(*share) for share in shares], _configured(namespace, limits))
        if params is not None:
            self._dialect.run(connection, "fill_shares" if shares else "make_shares", {**name, **params})


class _Amounts(NamedTuple):
    """Bytes, entries and operation records: what a ledger counts and limits."""

    in_bytes: int
    in_entries: int
    in_records: int

    def is_worth_a_row(self) -> bool:
        """Return whether a share of this size is worth a row."""
        return all(size >= least for size, least in zip(self, _MIN_SHARE, strict=True))


class _First(NamedTuple):
    """The first row of a ledger."""

    used_bytes: int
    entry_count: int
    record_count: int
    quota_bytes: int | None
    lent_bytes: int
    lent_entries: int
    lent_records: int
    limit_factor: int

    def limits(self, configured: _Amounts) -> _Amounts:
        """Return the ledger's limits: a namespace's own quota multiplies the others."""
        return _Amounts(
            configured.in_bytes if self.quota_bytes is None else self.quota_bytes,
            configured.in_entries * self.limit_factor,
            configured.in_records * self.limit_factor,
        )

    def free(self, limits: _Amounts) -> _Amounts:
        """Return the amounts that this row neither uses nor lends to others."""
        return _Amounts(
            limits.in_bytes - self.used_bytes - self.lent_bytes,
            limits.in_entries - self.entry_count - self.lent_entries,
            limits.in_records - self.record_count - self.lent_records,
        )


class _Share(NamedTuple):
    """Another row of it, and the limits that it was lent."""

    slot: int
    used_bytes: int
    limit_bytes: int
    lent_under_bytes: int | None
    entry_count: int
    entry_limit: int
    record_count: int
    record_limit: int

    def free(self) -> _Amounts:
        """Return the rest of the share."""
        return _Amounts(
            self.limit_bytes - self.used_bytes,
            self.entry_limit - self.entry_count,
            self.record_limit - self.record_count,
        )

    def has_room(self, share: _Amounts, lent_under_bytes: int | None) -> bool:
        """Return whether it need not be filled. Every write takes a record, so half of these is enough."""
        free = self.free()
        return (
            self.lent_under_bytes == lent_under_bytes
            and free.in_bytes >= share.in_bytes
            and free.in_entries >= share.in_entries // 2
            and free.in_records >= share.in_records // 2
        )


def _configured(namespace: str, limits: Limits) -> _Amounts:
    if namespace == GLOBAL_LEDGER:
        return _Amounts(limits.global_bytes or 0, _NO_LIMIT, _NO_LIMIT)
    return _Amounts(limits.namespace_bytes, limits.entries, limits.records)


def _plan_shares(first: _First, shares: Sequence[_Share], configured: _Amounts) -> Mapping[str, Any] | None:
    """Return the parameters that split a ledger or fill its free shares; None if there is nothing to split."""
    limits, slack = first.limits(configured), _sum(share.free() for share in shares)
    # Half stays in the first row, for values that are larger than a share.
    share = _Amounts(*((free + back) // (2 * SHARES) for free, back in zip(first.free(limits), slack, strict=True)))
    lent_under = configured.in_bytes if first.quota_bytes is None else None
    if not share.is_worth_a_row() or any(other.has_room(share, lent_under) for other in shares):
        return None
    lent = _Amounts(*(size * len(shares) - back for size, back in zip(share, slack, strict=True)))
    return {
        **_numbers(share, lent, limits),
        "lent_under_bytes": None if lent_under is None else str(lent_under),
        "shares": SHARES,
        "slots": [other.slot for other in shares],
    }


def _sum(amounts: Iterable[_Amounts]) -> _Amounts:
    total = _Amounts(0, 0, 0)
    for more in amounts:
        total = _Amounts(*map(sum, zip(total, more, strict=True)))
    return total


def _numbers(share: _Amounts, lent: _Amounts, limits: _Amounts) -> dict[str, str]:
    """Return the numbers as text: psycopg would send integers of different sizes as different types."""
    numbers = {
        "share_bytes": share.in_bytes,
        "share_entries": share.in_entries,
        "share_records": share.in_records,
        "lent_bytes": lent.in_bytes,
        "lent_entries": lent.in_entries,
        "lent_records": lent.in_records,
        "limit_bytes": limits.in_bytes,
        "entry_limit": limits.in_entries,
        "record_limit": limits.in_records,
    }
    return {name: str(number) for name, number in numbers.items()}
