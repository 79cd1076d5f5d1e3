"""Applies each write exactly once: replays, quota refusals after a purge, and refusals that must be repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from kvworker.adapters.sql import maintenance
from kvworker.adapters.sql.executor import Executor
from kvworker.adapters.sql.planned_writes import common_params
from kvworker.adapters.sql.planning import StepRefusedError
from kvworker.adapters.sql.recorded_refusals import (
    REFUSALS,
    check_attempt,
    is_refusal,
    refusal_line,
    refusal_of_this_attempt,
)
from kvworker.adapters.sql.signals import (
    DuplicateOperationError,
    NamespaceMissingError,
    NotAnIntegerError,
    OutOfRangeError,
    QuotaRefusedError,
)
from kvworker.adapters.sql.write import Limits, Record, Write
from kvworker.errors import (
    CounterOverflowError,
    IdempotencyConflictError,
    InvalidValueTypeError,
    KVStoreError,
    LimitExceededError,
    StoreUnavailableError,
)

#: A ledger that another process removes before it is used is created again, this many times.
_MAX_FOUNDINGS: Final = 5


class Writer:
    """Applies writes through an executor. Thread-safe."""

    def __init__(self, executor: Executor, limits: Limits) -> None:
        self._executor = executor
        self._dialect = executor.dialect
        self._limits = limits
        self._global_ledger_exists = limits.global_bytes is None

    def apply(self, write: Write) -> Record:
        """Apply a write, or return its record. If this attempt was refused before, it is refused again.

        Raises:
            KVStoreError: the write was refused; see the adapter's methods.
        """
        self.ensure_global_ledger()
        refusals = ""
        while True:
            try:
                record = self._apply_with_purge(write)
            except REFUSALS as refusal:
                found = self._record_refusals(write, refusals + refusal_line(refusal))
                if found is None:
                    raise
                record = found
            if not is_refusal(record):
                break
            refused = refusal_of_this_attempt(record)
            if refused is not None:
                raise refused
            check_attempt()
            refusals += self._withdraw_refusals(write)
        if record.fingerprint not in {write.fingerprint, str(write.request_digest)}:
            raise IdempotencyConflictError(write.namespace, write.operation_id)
        return record

    def find_record(self, namespace: str, operation_id: str) -> Record | None:
        """Return the record of an operation id, which may be one of refusals, or None."""

        def _read(connection: Any) -> Record | None:
            return self._dialect.find_record(connection, namespace, operation_id)

        return self._executor.run(_read, operation="find_record")

    def ensure_global_ledger(self) -> None:
        """Start global accounting, once in this process, if there is a global quota."""
        if not self._global_ledger_exists:
            maintenance.ensure_global_ledger(self._executor)
            self._global_ledger_exists = True

    def _record_refusals(self, write: Write, refusals: str) -> Record | None:
        """Record refusals. If a copy of the operation was applied at the same moment, return its record instead.

        A namespace whose operation records are at their limit records no refusals.
        """
        params = {**common_params(write, self._limits), "result": refusals}
        record_refusal = partial(self._dialect.record_refusal, params=params)
        try:
            while refusals and not self._executor.run(record_refusal, operation="record_refusal"):
                record = self.find_record(write.namespace, write.operation_id)
                if record is not None:
                    return record
                self.found_namespace(write.namespace)
        except (QuotaRefusedError, LimitExceededError):
            pass
        return None

    def _withdraw_refusals(self, write: Write) -> str:
        params = common_params(write, self._limits)
        work = partial(self._dialect.withdraw_refusals, params=params)
        return self._executor.run(work, operation="withdraw_refusals")

    def _apply_with_purge(self, write: Write) -> Record:
        """Apply a write. If a quota refuses it, purge expired entries and try again before giving up."""
        founded = 0
        while True:
            try:
                return self._apply_once(write)
            except NamespaceMissingError:
                founded += 1
                if founded > _MAX_FOUNDINGS:
                    raise KVStoreError("the ledger of the namespace vanishes whenever it is created") from None
                self.found_namespace(write.namespace)
            except QuotaRefusedError as refusal:
                if refusal.quota in write.purged:
                    raise maintenance.quota_error(self._executor, write, refusal, self._limits) from refusal.__cause__
                write = replace(write, purged=write.purged | {refusal.quota})
                maintenance.make_room(self._executor, write.namespace, refusal.quota)

    def found_namespace(self, namespace: str) -> None:
        """Create a namespace's ledger. If there are too many namespaces, remove the empty ones and try again.

        Raises:
            LimitExceededError: there are still too many.
        """
        params = {"namespace": namespace, "namespace_limit": self._limits.namespaces}
        work = partial(self._dialect.found_namespace, params=params)
        try:
            self._executor.run(work, operation="found_namespace")
        except QuotaRefusedError:
            maintenance.make_room(self._executor, namespace, "namespaces")
            try:
                self._executor.run(work, operation="found_namespace")
            except QuotaRefusedError:
                count = maintenance.count_namespaces(self._executor)
                raise LimitExceededError("namespaces", None, self._limits.namespaces, count) from None

    def _apply_once(self, write: Write) -> Record:
        operation_id = write.operation_id
        try:
            work = partial(self._dialect.write, write=write, limits=self._limits)
            return self._executor.run(work, operation_id, write.action)
        except DuplicateOperationError:
            return self._record_of_winner(
                write,
                lambda: StoreUnavailableError("the record of the same operation was just pruned", operation_id),
            )
        except NotAnIntegerError:
            return self._record_of_winner(write, lambda: InvalidValueTypeError(*_name(write)))
        except OutOfRangeError:
            return self._record_of_winner(write, lambda: CounterOverflowError(*_name(write)))
        except StepRefusedError as refused:
            raise refused.error_for(write.action) from (refused.error if write.action == "batch" else None)

    def _record_of_winner(self, write: Write, make_error: Callable[[], Exception]) -> Record:
        """Return the record of the same operation that ran at the same moment and won; without one, raise the error."""
        record = self.find_record(write.namespace, write.operation_id)
        if record is None:
            raise make_error() from None
        return record


def _name(write: Write) -> tuple[str, str]:
    return write.namespace, write.steps[0].key
