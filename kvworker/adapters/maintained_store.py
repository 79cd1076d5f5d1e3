"""The part of an adapter's contract that maintenance and operators use; ``contract`` has the operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

from kvworker.model import (
    DatabaseConnections,
    ExpiryReport,
    LedgerUsage,
    PoolUse,
    PruneReport,
    RecomputeReport,
    SweepReport,
    TableSize,
    UsagePage,
    UsageQuery,
    VerifyReport,
)


class MaintainedStore(ABC):
    """A store with ledgers, expired entries and operation records to maintain, and perhaps a schema to migrate."""

    @abstractmethod
    def sweep_expired(self, *, batch_rows: int = 200, budget_seconds: float = 30.0) -> SweepReport:
        """Delete expired entries in batches until none is left or the budget is spent.

        Args:
            batch_rows: The most entries of a batch. Each batch is its own transaction.
            budget_seconds: No batch begins after that time, except the first one.

        Raises:
            InvalidRequestError: ``batch_rows`` is not a positive integer, or too large.
        """

    @abstractmethod
    def recompute_ledgers(self, *, after: str | None = None, budget_seconds: float = 30.0) -> RecomputeReport:
        """Set every ledger to what its entries really use, and report each ledger that was wrong.

        Namespaces are visited in order, each in its own transaction, and the global ledger last.

        Args:
            after: Begin with the first namespace after this one: the ``next_after`` of the last report.
            budget_seconds: No namespace is visited after that time, except the first one.
        """

    @abstractmethod
    def prune_operations(self, *, batch_rows: int = 1000, budget_seconds: float = 30.0) -> PruneReport:
        """Delete operation records past their retention. The arguments and errors are those of ``sweep_expired``."""

    @abstractmethod
    def usage(self, namespace: str | None = None) -> list[LedgerUsage]:
        """Return ledgers with their quotas, in bytes.

        Args:
            namespace: Only this namespace; an unknown one uses 0 bytes. None gives every namespace in order, and last
                the whole store if it has a global quota.
        """

    def migrate(self) -> None:  # noqa: B027 - not every backend has a schema
        """Create or update the backend's schema. Does nothing if the backend has none."""

    def schema_version(self) -> str | None:
        """Read the version of the backend's schema from the database; None if the backend has no schema.

        Raises:
            SchemaError: the database was never migrated.
        """
        return None

    def check_usable(self) -> None:
        """Check that operations can run: the backend answers, its schema fits, and this user has the rights.

        A worker consumes only while this succeeds. The default reads a ledger. Override it if your backend can tell
        more without changing anything.

        Raises:
            StoreUnavailableError: the backend cannot serve now, and may later.
            SchemaError, ConfigurationError: it cannot serve until somebody changes something.
        """
        self.usage("kvworker")

    def verify(self, on_progress: Callable[[int], None] = lambda _checked_entries: None) -> VerifyReport | None:  # noqa: ARG002
        """Check in one snapshot, without changing anything, that what the backend holds is consistent.

        Args:
            on_progress: Called now and then with the number of entries that were checked so far.

        Returns:
            The findings; None if the backend has no such check.

        Raises:
            SchemaError: it has no schema, or the schema of another version.
            StoreUnavailableError: it cannot be read to the end.
        """
        return None

    def clock(self) -> float | None:
        """Return the clock that decides expiry, in seconds since 1970; None if the backend cannot tell."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Release the connections. The adapter must not be used afterwards."""

    def total_usage(self) -> LedgerUsage:
        """Return the usage of the whole store; ``quota_bytes`` is the global quota, or None without one."""
        ledgers = self.usage()
        if ledgers and ledgers[-1].namespace is None:
            return ledgers[-1]
        used_bytes = sum(ledger.used_bytes for ledger in ledgers)
        return LedgerUsage(None, used_bytes, sum(ledger.entry_count for ledger in ledgers), None)

    def rank_usage(self, query: UsageQuery) -> UsagePage:
        """Return a page of namespaces' ledgers in an order. The default reads every ledger.

        Raises:
            InvalidKeyError: The query's search or its prefix is not part of a name.
            InvalidRequestError: The query is invalid.
        """
        return query.checked().page_of(self.usage())

    def expiry_report(self) -> ExpiryReport | None:
        """Count the entries that have expired and those that will; None if the backend cannot tell."""
        return None

    def table_sizes(self) -> tuple[TableSize, ...] | None:
        """Return the size of each table; None if the backend cannot tell."""
        return None

    def database_connections(self) -> DatabaseConnections | None:
        """Count the connections to the database; None if the backend cannot tell, or has none."""
        return None

    def pool_use(self) -> PoolUse | None:
        """Count this process's own connections, without opening one; None without a pool that can tell."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
