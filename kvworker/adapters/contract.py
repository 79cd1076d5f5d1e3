"""The contract of a storage backend: the interface here, and the behavior that ``kvworker.testing`` checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from kvworker.adapters.maintained_store import MaintainedStore
from kvworker.adapters.step_calls import call_method
from kvworker.adapters.value_methods import ValueMethods
from kvworker.model import (
    DEFAULT_PAGE_ROWS,
    BatchResult,
    ClearResult,
    DeleteResult,
    GetResult,
    IncrementResult,
    JSONValue,
    KeyList,
    NamespaceList,
    Operation,
    QuotaResult,
    SetResult,
    Step,
    StepResult,
    TouchResult,
)


class KeyValueStoreAdapter(MaintainedStore, ValueMethods):
    """A storage backend for entries, ledgers and operation records.

    To write an adapter, subclass this class, or ``StepAdapter`` to handle all writes of one key in one method. Run
    ``kvworker.testing.AdapterConformance`` against it, and register it with ``register_kv_store_adapter``.
    ``examples/memory_adapter.py`` is a small complete adapter.

    Names: a namespace has 1 to 255 bytes of UTF-8, a key 1 to 1024. Both are kept exactly; neither is blank.

    Expiry: a TTL is in seconds, finite and above 0. The database's clock decides expiry, never a worker's. An expired
    entry is invisible to every method at once, whether it was swept or not.

    Quotas: sizes are bytes of UTF-8 of the value's canonical JSON (``Step.text``). A quota holds under any concurrency,
    since the database enforces it in the transaction of the write. A write that does not grow its ledger always
    passes. Expired entries never cause a refusal: they are purged first. An adapter may also limit the number of a
    namespace's entries and operation records and that of namespaces, as the bundled ones do, with
    ``LimitExceededError``.

    Operation ids: every write takes an ``operation_id`` (1 to 255 bytes), which belongs to its namespace. The
    transaction of the write records the id with the result. The same id again returns the recorded result with
    ``replayed=True`` and changes nothing, on any thread, process and machine. Without an id a fresh one is used. A
    refused write changes nothing and records nothing.

    Versions: every write of a value gives the entry a larger version, below 2**53. A version never comes back, even if
    the entry is deleted and created again.

    Any method may raise ``StoreUnavailableError`` (call again with the same operation id), ``SchemaError`` and
    ``ConfigurationError``. Every method checks its arguments and may raise ``InvalidKeyError`` for a namespace or a
    key; every write may raise ``InvalidRequestError`` for an operation id. An adapter is safe to use from several
    threads, and in a process that was forked after the adapter was made.
    """

    @abstractmethod
    def get(self, namespace: str, key: str) -> GetResult:
        """Read an entry.

        Returns:
            The value, its version and its remaining seconds. A missing or expired entry gives ``found=False``.
        """

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
        """Write an entry.

        Args:
            namespace: The namespace.
            key: The key.
            value: Any JSON value.
            ttl_seconds: When the entry expires. Without it the entry stays, and an old TTL is cleared.
            expected_version: Write only if the live entry has this version.
            if_absent: Write only if the key has no live entry. Contradicts ``expected_version``.
            keep_ttl: Keep the TTL of a live entry instead. Contradicts ``ttl_seconds``.
            operation_id: The idempotency key.

        Raises:
            ValueSerializationError: the value is not JSON.
            InvalidTTLError: ``ttl_seconds`` is not a finite number above 0.
            InvalidRequestError: an option is invalid, or two options contradict each other.
            VersionConflictError: ``expected_version`` or ``if_absent`` is not satisfied.
            NamespaceQuotaExceededError, GlobalQuotaExceededError: the value does not fit.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def delete(
        self, namespace: str, key: str, *, expected_version: int | None = None, operation_id: str | None = None
    ) -> DeleteResult:
        """Remove an entry. A missing or expired entry gives ``deleted=False``; that is recorded like a hit.

        Raises:
            InvalidRequestError: ``expected_version`` is not a version.
            VersionConflictError: the live entry does not have ``expected_version``, or there is none.
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
        """Add ``delta`` to a counter atomically. A missing or expired counter becomes ``initial_value + delta``.

        Without ``ttl_seconds`` a live counter keeps its TTL.

        Raises:
            InvalidValueTypeError: the stored value is not a JSON integer (``true``, ``1.0`` and ``"1"`` are not).
            CounterOverflowError: the stored value or the sum is not a signed 64-bit integer.
            InvalidRequestError: ``delta`` or ``initial_value`` is not a signed 64-bit integer.
            InvalidTTLError: ``ttl_seconds`` is not a finite number above 0.
            NamespaceQuotaExceededError, GlobalQuotaExceededError: the sum does not fit.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def touch(
        self,
        namespace: str,
        key: str,
        ttl_seconds: float,
        *,
        expected_version: int | None = None,
        operation_id: str | None = None,
    ) -> TouchResult:
        """Make a live entry expire ``ttl_seconds`` from now. Its value and version stay. A miss gives ``found=False``.

        Raises:
            InvalidTTLError: ``ttl_seconds`` is not a finite number above 0.
            VersionConflictError: the live entry does not have ``expected_version``, or there is none.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def persist(
        self, namespace: str, key: str, *, expected_version: int | None = None, operation_id: str | None = None
    ) -> TouchResult:
        """Remove the TTL of a live entry. Its value and version stay. A miss gives ``found=False``.

        Raises:
            VersionConflictError: the live entry does not have ``expected_version``, or there is none.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    def apply_step(self, namespace: str, step: Step, operation_id: str | None) -> StepResult:
        """Apply a step as an operation, and return the result of its action. Workers write each single key with it.

        The default calls the method of the action, which encodes the value again. Override it to use ``step.text``.

        Args:
            namespace: The namespace, unchecked.
            step: The action and its arguments, checked.
            operation_id: The idempotency key, unchecked.

        Raises:
            KVStoreError: the step was refused; see the method of its action.
        """
        return call_method(self, namespace, step, operation_id)

    @abstractmethod
    def batch(
        self, namespace: str, steps: Sequence[Step], *, atomic: bool = True, operation_id: str | None = None
    ) -> BatchResult:
        """Apply up to 1000 steps in order, in one transaction, under one operation id.

        An atomic batch applies all steps or none, and its growth as a whole must fit the quotas. Otherwise each step is
        applied or refused individually, and the error of a refused step takes the place of its result. A batch that
        only reads sees the entries as of one moment and is not recorded. The record of another batch does not hold what
        it read: a replay reads again, and repeats everything else.

        Raises:
            InvalidRequestError: ``steps`` is empty, too long, or holds anything but steps.
            BatchRefusedError: a step of an atomic batch was refused.
            ReadTooLargeError: the steps read more than 4 MiB.
            ReplayTooLargeError: the batch was applied before, and its steps read more than 4 MiB by now.
            NamespaceQuotaExceededError, GlobalQuotaExceededError: an atomic batch does not fit.
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    def apply_many(self, operations: Sequence[Operation]) -> list[StepResult | None]:
        """Apply unrelated operations together if that is faster, in any order.

        Returns:
            For each operation the result that its own method would give, or None if it was not applied. The caller
            then applies it individually. The default applies none, for backends that gain nothing.
        """
        return [None] * len(operations)

    @abstractmethod
    def clear(self, namespace: str, *, operation_id: str | None = None) -> ClearResult:
        """Remove every entry of a namespace in one transaction.

        Returns:
            The number of live entries that were removed, and the bytes freed, which include expired entries.

        Raises:
            IdempotencyConflictError: the operation id was used with other arguments.
        """

    @abstractmethod
    def set_quota(self, namespace: str, quota_bytes: int | None, *, operation_id: str | None = None) -> QuotaResult:
        """Give a namespace its own quota, or restore the configured one with None. Stored entries stay.

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
        """List the live entries whose keys begin with ``prefix``, in order of code points.

        Args:
            namespace: The namespace. An unknown one gives an empty page.
            prefix: The beginning of the keys; it is literal, without wildcards.
            limit: The most entries of a page, 1 to 1000.
            cursor: The ``next_cursor`` of the page before. No snapshot is held between pages.
            include_values: Also read the values. The page then ends before they exceed 4 MiB together, but it
                holds at least one entry.

        Raises:
            InvalidKeyError: the prefix cannot begin a key.
            InvalidRequestError: another argument is invalid.
        """

    @abstractmethod
    def list_namespaces(
        self, *, prefix: str = "", limit: int = DEFAULT_PAGE_ROWS, cursor: str | None = None
    ) -> NamespaceList:
        """List the namespaces that begin with ``prefix`` and have live entries, in order, with their usage.

        The arguments are those of ``list_keys``.

        Raises:
            InvalidKeyError: the prefix cannot begin a namespace.
            InvalidRequestError: another argument is invalid.
        """

    def was_applied(self, namespace: str, operation_id: str) -> bool:  # noqa: ARG002 - for backends that can tell
        """Return whether a write with this operation id was applied and its record still exists.

        A worker asks before it reports a redelivered message as expired. A backend that cannot tell returns False.
        The caller is then told that the outcome is unknown, which is true as well.
        """
        return False
