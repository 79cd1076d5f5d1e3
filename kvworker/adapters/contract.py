"""What a storage backend promises: the interface, and the conduct that `kvworker.testing` checks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from kvworker.model import (
    DEFAULT_PAGE_ROWS,
    BatchResult,
    ClearResult,
    DeleteResult,
    GetResult,
    IncrementResult,
    JSONValue,
    KeyList,
    LedgerUsage,
    NamespaceList,
    Operation,
    PruneReport,
    QuotaResult,
    RecomputeReport,
    SetResult,
    Step,
    StepResult,
    SweepReport,
    TouchResult,
)


class KeyValueStoreAdapter(ABC):
    """A storage backend for entries, ledgers and operation records.

    Every write takes an operation id and records it with its result in the transaction of the write:
    the same id again returns the recorded result with ``replayed=True`` and changes nothing. Without an
    id a fresh one is used. Expiry is decided by the database's clock. Quotas are enforced by the
    database, in the transaction of the write, under any concurrency.

    Any method may raise ``StoreUnavailableError`` (try again with the same operation id) and
    ``SchemaError``; every method checks its arguments and may raise ``InvalidKeyError``. An adapter is
    safe to use from several threads, and from a process forked after it was made.
    """

    @abstractmethod
    def get(self, namespace: str, key: str) -> GetResult:
        """Read an entry. A miss, or an expired entry, gives ``found=False``."""

    @abstractmethod
    def set(  # noqa: PLR0913 - the options of a write
        self,
        namespace: str,
        key: str,
        value: JSONValue,
        *,
        ttl_seconds: float | None = None,
        expected_version: int | None = None,
        if_absent: bool = False,
        keep_ttl: bool = False,
        operation_id: str | None = None,
    ) -> SetResult:
        """Write an entry. Without ``ttl_seconds`` it does not expire, whatever it did before.

        ``keep_ttl`` leaves a live entry's expiry as it is instead.

        Raises:
            ValueSerializationError: the value is not JSON.
            InvalidTTLError: ``ttl_seconds`` is not a finite number above 0.
            InvalidRequestError: options that contradict each other.
            VersionConflictError: it is not of ``expected_version``, or, with ``if_absent``, there is one.
            NamespaceQuotaExceededError, GlobalQuotaExceededError: it does not fit.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def delete(
        self, namespace: str, key: str, *, expected_version: int | None = None, operation_id: str | None = None
    ) -> DeleteResult:
        """Remove an entry. A miss, or an expired entry, gives ``deleted=False``.

        Raises:
            VersionConflictError: it is not of ``expected_version``.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def increment(
        self,
        namespace: str,
        key: str,
        *,
        delta: int = 1,
        initial_value: int = 0,
        ttl_seconds: float | None = None,
        operation_id: str | None = None,
    ) -> IncrementResult:
        """Add ``delta`` to a counter; a missing or expired one becomes ``initial_value + delta``.

        Without ``ttl_seconds`` a live counter keeps its TTL.

        Raises:
            InvalidValueTypeError: the stored value is not a JSON integer.
            CounterOverflowError: the sum is not a signed 64-bit integer.
            InvalidRequestError: ``delta`` or ``initial_value`` is not a signed 64-bit integer.
            NamespaceQuotaExceededError, GlobalQuotaExceededError: it does not fit.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def touch(self, namespace: str, key: str, ttl_seconds: float, *, operation_id: str | None = None) -> TouchResult:
        """Let a live entry expire ``ttl_seconds`` from now; its value and version stay.

        A miss gives ``found=False``.

        Raises:
            InvalidTTLError: ``ttl_seconds`` is not a finite number above 0.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def persist(self, namespace: str, key: str, *, operation_id: str | None = None) -> TouchResult:
        """Let a live entry stay for good; its value and version stay. A miss gives ``found=False``.

        Raises:
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def batch(
        self, namespace: str, steps: Sequence[Step], *, atomic: bool = True, operation_id: str | None = None
    ) -> BatchResult:
        """Take up to 1000 steps in their order, in one transaction, under one operation id.

        An atomic batch applies all or nothing, and is held to the quotas by what it grows as a whole.
        Otherwise each step is applied or refused on its own, and a refused one's error stands in its place.
        Steps that only read need no operation id; they see the entries as they are at one moment.

        Raises:
            InvalidRequestError: there are no steps, or too many.
            BatchRefusedError: a step of an atomic batch was refused.
            ReadTooLargeError: its steps read too much: 4 MiB, or 64 KiB where others write, since the record of
                what they read is kept.
            NamespaceQuotaExceededError, GlobalQuotaExceededError: an atomic batch does not fit.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    def apply_many(self, operations: Sequence[Operation]) -> list[StepResult | None]:
        """Take operations that have nothing to do with each other in one go, as far as that works.

        Each is applied as by its own method, or it is None and may be taken on its own. Which of them comes first is
        not said. Backends that gain nothing by it take none.
        """
        return [None] * len(operations)

    @abstractmethod
    def clear(self, namespace: str, *, operation_id: str | None = None) -> ClearResult:
        """Remove every entry of a namespace in one transaction.

        Raises:
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def set_quota(self, namespace: str, quota_bytes: int | None, *, operation_id: str | None = None) -> QuotaResult:
        """Give a namespace a quota of its own, or with None the configured one back. What is stored stays.

        Raises:
            InvalidRequestError: ``quota_bytes`` is not a positive integer.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        limit: int = DEFAULT_PAGE_ROWS,
        cursor: str | None = None,
        include_values: bool = False,
    ) -> KeyList:
        """List the live entries whose keys begin with ``prefix``, in order of their code points.

        A page holds at most ``limit`` entries, and with values at most 4 MiB of them, but at least one. Its
        ``next_cursor`` is the ``cursor`` of the next page. No snapshot is held between pages.

        Raises:
            InvalidRequestError: an argument is wrong.
        """

    @abstractmethod
    def list_namespaces(
        self, *, prefix: str = "", limit: int = DEFAULT_PAGE_ROWS, cursor: str | None = None
    ) -> NamespaceList:
        """List the namespaces that have live entries and begin with ``prefix``, in order, with their usage.

        Raises:
            InvalidRequestError: an argument is wrong.
        """

    def total_usage(self) -> LedgerUsage:
        """Tell what the whole store uses; ``quota_bytes`` is the global quota, if there is one."""
        ledgers = self.usage()
        if ledgers and ledgers[-1].namespace is None:
            return ledgers[-1]
        used_bytes = sum(ledger.used_bytes for ledger in ledgers)
        return LedgerUsage(None, used_bytes, sum(ledger.entry_count for ledger in ledgers), None)

    def was_applied(self, namespace: str, operation_id: str) -> bool:  # noqa: ARG002 - for backends that can tell
        """Whether the record of a write with this operation id is there.

        A worker asks before it calls a redelivered message expired. Backends that cannot tell say False:
        the caller then hears that the outcome is unknown, which is true as well.
        """
        return False

    @abstractmethod
    def sweep_expired(self, *, batch_rows: int = 200, budget_seconds: float = 30.0) -> SweepReport:
        """Delete expired entries in batches, each its own transaction, until none is left or time is up."""

    @abstractmethod
    def recompute_ledgers(self, *, after: str | None = None, budget_seconds: float = 30.0) -> RecomputeReport:
        """Set every ledger to what its entries really use, and report each that was wrong.

        Namespaces are visited in order, from the first one behind ``after``; when time is up the report's
        ``next_after`` tells where to go on. The global ledger, if there is one, comes last.
        """

    @abstractmethod
    def prune_operations(self, *, batch_rows: int = 1000, budget_seconds: float = 30.0) -> PruneReport:
        """Delete operation records past their retention, in batches, until none is left or time is up."""

    @abstractmethod
    def usage(self, namespace: str | None = None) -> list[LedgerUsage]:
        """Ledgers against their quotas: one namespace's, or all in order and then the global one if set."""

    def migrate(self) -> None:  # noqa: B027 - not every backend has a schema
        """Create or update the backend's schema. Backends without one do nothing."""

    def schema_version(self) -> str | None:
        """Which version of the schema the backend has, asked anew; None for a backend without one.

        Raises:
            SchemaError: it was never migrated.
        """
        return None

    def clock(self) -> float | None:
        """The clock that decides expiry, in seconds since 1970; None if the backend cannot tell."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Release connections. The adapter may not be used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
