"""The operators' view of a store: namespaces in order of their usage, expiry ahead, tables and connections.

Sizes are in bytes, times in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, TypeAlias, get_args

from kvworker.errors import InvalidRequestError
from kvworker.model.identifiers import MAX_NAMESPACE_BYTES, check_prefix
from kvworker.model.patterns import matches
from kvworker.model.results import LedgerUsage
from kvworker.model.validation import MAX_PAGE_ROWS, check_count, check_integer

#: The orders of namespaces.
UsageOrder: TypeAlias = Literal["fullness", "used_bytes", "entry_count", "record_count", "namespace"]
#: A count of expired or expiring entries stops here, so that it stays cheap.
MOST_COUNTED: Final = 100_000
#: The ends of the ranges in which expiring entries are counted: a minute, an hour, a day, a week and 30 days.
EXPIRY_RANGES: Final = (60, 3600, 86_400, 604_800, 2_592_000)


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """A choice of namespaces' ledgers, and their order.

    Attributes:
        order_by: The order; equal ones are in order of their names.
        descending: True if the largest comes first.
        search: Only namespaces whose names hold this text.
        patterns: Only namespaces that match one of these; None means all.
        limit: The most ledgers of a page, 1 to 1000.
        offset: The number of ledgers to skip.
        prefix: Only namespaces whose names begin with this text.
    """

    order_by: UsageOrder = "fullness"
    descending: bool = True
    search: str = ""
    patterns: tuple[str, ...] | None = None
    limit: int = 20
    offset: int = 0
    prefix: str = ""

    def checked(self) -> UsageQuery:
        """Check the query and return it.

        Raises:
            InvalidKeyError: The search or the prefix is not part of a name.
            InvalidRequestError: Another argument is invalid.
        """
        if self.order_by not in get_args(UsageOrder):
            raise InvalidRequestError(f"order_by must be one of {', '.join(get_args(UsageOrder))}")
        check_prefix("search", self.search, MAX_NAMESPACE_BYTES)
        check_prefix("prefix", self.prefix, MAX_NAMESPACE_BYTES)
        check_count("limit", self.limit, MAX_PAGE_ROWS)
        if check_integer("offset", self.offset) < 0:
            raise InvalidRequestError(f"offset must be at least 0, not {self.offset}")
        return self

    def page_of(self, ledgers: Iterable[LedgerUsage]) -> UsagePage:
        """Choose and order ledgers, for a backend that has no query for it. The whole store's ledger is left out."""
        found = [(ledger.namespace, ledger) for ledger in ledgers if ledger.namespace is not None]
        chosen = [ledger for name, ledger in sorted(found, key=lambda pair: pair[0]) if self._chooses(name)]
        if self.order_by == "namespace":
            chosen = chosen[:: -1 if self.descending else 1]
        else:
            chosen.sort(key=lambda ledger: float(getattr(ledger, self.order_by)), reverse=self.descending)
        return UsagePage(tuple(chosen[self.offset : self.offset + self.limit]), len(chosen))

    def _chooses(self, namespace: str) -> bool:
        is_within = namespace.startswith(self.prefix) and self.search in namespace
        return is_within and (self.patterns is None or any(matches(pattern, namespace) for pattern in self.patterns))


@dataclass(frozen=True, slots=True)
class UsagePage:
    """A page of namespaces' ledgers. ``total_count`` is the number on all pages; 0 on a page after the last one."""

    ledgers: tuple[LedgerUsage, ...]
    total_count: int


@dataclass(frozen=True, slots=True)
class ExpiringEntries:
    """The number of entries that expire after so many seconds and up to so many. It stops at ``MOST_COUNTED``."""

    after_seconds: float
    until_seconds: float
    entry_count: int


@dataclass(frozen=True, slots=True)
class ExpiryReport:
    """Entries by their expiry.

    Attributes:
        unswept_count: Entries that are expired and not swept yet. It stops at ``MOST_COUNTED``.
        sweep_lag_seconds: The time since the first of them expired; 0 without one.
        ahead: Live entries, by the time until they expire.
    """

    unswept_count: int
    sweep_lag_seconds: float
    ahead: tuple[ExpiringEntries, ...]

    def cumulative(self) -> tuple[tuple[float, int], ...]:
        """Return pairs of a number of seconds and how many entries expire within it."""
        counts = accumulate(each.entry_count for each in self.ahead)
        return tuple(zip((each.until_seconds for each in self.ahead), counts, strict=True))


@dataclass(frozen=True, slots=True)
class TableSize:
    """The size of a table with its partitions, or of a database that reports no sizes of tables.

    ``index_bytes`` and ``row_estimate`` are None where the backend cannot tell.
    """

    name: str
    table_bytes: int
    index_bytes: int | None = None
    row_estimate: int | None = None

    @property
    def total_bytes(self) -> int:
        """The bytes of table and indexes together."""
        return self.table_bytes + (self.index_bytes or 0)


@dataclass(frozen=True, slots=True)
class PoolUse:
    """The connections of one process to its database.

    Attributes:
        busy: The connections in use.
        idle: The open connections that are not in use.
        limit: The most that the pool opens; None without a limit.
    """

    busy: int
    idle: int
    limit: int | None


@dataclass(frozen=True, slots=True)
class TableLock:
    """A lock on a whole table, under which its reads or its writes wait.

    Attributes:
        table: The table.
        mode: The database's name of the lock.
        pid: The process of the database that holds the lock or waits for it; 0 for a prepared transaction.
        user: The user of that process.
        program: What that program calls itself; "" if it does not.
        open_seconds: The age of its transaction; None if this user may not see it.
        waits_for: The processes that it waits for. As long as it waits, so do others. Empty if it holds the lock.
    """

    table: str
    mode: str
    pid: int
    user: str
    program: str
    open_seconds: float | None
    waits_for: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockingSession:
    """A session of the database that keeps others waiting for a lock on rows of the store.

    Attributes:
        pid: Its process of the database; 0 for a prepared transaction.
        user: The user of that process.
        program: What that program calls itself; "" if it does not.
        open_seconds: The age of its transaction; None if this user may not see it.
        waiting_count: The sessions that wait for it, directly or behind others.
        waiting_seconds: How long the first of them has been waiting.
    """

    pid: int
    user: str
    program: str
    open_seconds: float | None
    waiting_count: int
    waiting_seconds: float


@dataclass(frozen=True, slots=True)
class DatabaseConnections:
    """The connections to the store's database, of all programs.

    ``hidden`` ones belong to users whose activity this one may not see, so the other counts are without them. ``locks``
    are the locks on the store's tables that may keep operations waiting. ``blockers`` are the sessions that have kept
    others waiting for a lock on rows for longer than a second.
    """

    total: int
    active: int
    idle_in_transaction: int
    waiting_for_lock: int
    hidden: int
    limit: int
    locks: tuple[TableLock, ...] = ()
    blockers: tuple[BlockingSession, ...] = ()
