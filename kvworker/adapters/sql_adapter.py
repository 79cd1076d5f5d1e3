"""The adapter over a SQL database: checks arguments, applies writes once, and turns refusals into errors."""

# ruff: noqa: D102 - what the methods do is said once, in the contract.

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from kvworker.adapter_settings import SqlAdapterSettings
from kvworker.adapters import maintenance
from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.adapters.dialect import (
    Dialect,
    DuplicateOperationError,
    Limits,
    NotAnIntegerError,
    OutOfRangeError,
    QuotaRefusedError,
    Record,
    Write,
)
from kvworker.adapters.engines import ProcessEngine
from kvworker.adapters.export import export_entries
from kvworker.adapters.session import Session
from kvworker.errors import (
    CounterOverflowError,
    IdempotencyConflictError,
    InvalidValueTypeError,
    StoreUnavailableError,
)
from kvworker.model import (
    DeleteResult,
    GetResult,
    IncrementResult,
    JSONValue,
    LedgerUsage,
    PruneReport,
    RecomputeReport,
    SetResult,
    SweepReport,
    check_integer,
    check_key,
    check_namespace,
    check_operation_id,
    check_ttl,
    decode_value,
    encode_value,
    new_operation_id,
)


class SqlAdapter(KeyValueStoreAdapter):
    """A store in a SQL database."""

    def __init__(self, settings: SqlAdapterSettings, dialect: Dialect, engine: ProcessEngine) -> None:
        self._dialect = dialect
        self._session = Session(dialect, engine, migrate_on_start=settings.migrate_on_start)
        self._limits = Limits(
            settings.namespace_quota_bytes, settings.global_quota_bytes, settings.operation_retention_seconds
        )
        self._global_ledger_exists = settings.global_quota_bytes is None

    def get(self, namespace: str, key: str) -> GetResult:
        params = {"namespace": check_namespace(namespace), "key": check_key(key)}
        row = self._session.run(lambda connection: self._dialect.fetch_one(connection, "get_entry", params))
        if row is None:
            return GetResult(namespace, key, found=False)
        text, ttl_seconds = row
        remaining = None if ttl_seconds is None else max(0.0, ttl_seconds)
        return GetResult(namespace, key, found=True, value=decode_value(text), ttl_seconds=remaining)

    def set(
        self,
        namespace: str,
        key: str,
        value: JSONValue,
        *,
        ttl_seconds: float | None = None,
        operation_id: str | None = None,
    ) -> SetResult:
        ttl, text = check_ttl(ttl_seconds), encode_value(value)
        write = _make_write("set_entry", (namespace, key), operation_id, text=text, ttl_seconds=ttl)
        record = self._apply(write)
        remaining = _remaining(record, record.result, ttl)
        return SetResult(namespace, key, value, ttl_seconds=remaining, replayed=record.replayed)

    def delete(self, namespace: str, key: str, *, operation_id: str | None = None) -> DeleteResult:
        record = self._apply(_make_write("delete_entry", (namespace, key), operation_id))
        return DeleteResult(namespace, key, deleted=record.result == "true", replayed=record.replayed)

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
        ttl, delta = check_ttl(ttl_seconds), check_integer("delta", delta)
        first = str(check_integer("initial_value", initial_value) + delta)
        write = _make_write("increment_entry", (namespace, key), operation_id, text=first, ttl_seconds=ttl, delta=delta)
        record = self._apply(write)
        value, _, expires_at = record.result.partition(" ")
        remaining = _remaining(record, expires_at, ttl)
        return IncrementResult(namespace, key, int(value), ttl_seconds=remaining, replayed=record.replayed)

    def was_applied(self, namespace: str, operation_id: str) -> bool:
        return self._recorded(check_namespace(namespace), check_operation_id(operation_id)) is not None

    def sweep_expired(self, *, batch_rows: int = 1000, budget_seconds: float = 30.0) -> SweepReport:
        return maintenance.sweep_expired(self._session, batch_rows=batch_rows, budget_seconds=budget_seconds)

    def prune_operations(self, *, batch_rows: int = 1000, budget_seconds: float = 30.0) -> PruneReport:
        return maintenance.prune_operations(self._session, batch_rows=batch_rows, budget_seconds=budget_seconds)

    def recompute_ledgers(self, *, after: str | None = None, budget_seconds: float = 30.0) -> RecomputeReport:
        self._ensure_global_ledger()
        return maintenance.recompute_ledgers(self._session, after=after, budget_seconds=budget_seconds)

    def usage(self, namespace: str | None = None) -> list[LedgerUsage]:
        if namespace is not None:
            return [maintenance.namespace_usage(self._session, check_namespace(namespace), self._limits)]
        self._ensure_global_ledger()
        return maintenance.all_usage(self._session, self._limits)

    def export_entries(self, namespace: str | None = None, *, page_rows: int = 1000) -> Iterator[GetResult]:
        """Yield every live entry, of one namespace or of all, in order; no snapshot is held meanwhile."""
        checked = None if namespace is None else check_namespace(namespace)
        return export_entries(self._session, checked, page_rows)

    def migrate(self) -> None:
        self._session.migrate()

    def schema_version(self) -> str:
        return self._session.schema_version()

    def clock(self) -> float:
        row = self._session.run(lambda connection: self._dialect.fetch_one(connection, "database_clock", {}))
        return float(row[0])

    def close(self) -> None:
        self._session.engine.close()

    def _apply(self, write: Write) -> Record:
        """Apply a write; when a quota refuses it, purge what expired and try again before giving up."""
        self._ensure_global_ledger()
        purged = set[bool]()
        while True:
            try:
                record = self._apply_once(write)
            except QuotaRefusedError as refusal:
                if refusal.is_global in purged:
                    raise maintenance.quota_error(self._session, write, refusal, self._limits) from refusal.__cause__
                purged.add(refusal.is_global)
                maintenance.purge_expired(self._session, None if refusal.is_global else write.namespace)
                continue
            if record.fingerprint != write.fingerprint:
                raise IdempotencyConflictError(write.namespace, write.operation_id)
            return record

    def _apply_once(self, write: Write) -> Record:
        operation_id = write.operation_id
        try:
            return self._session.run(partial(self._dialect.write, write=write, limits=self._limits), operation_id)
        except DuplicateOperationError as error:
            return self._record_of_winner(
                write,
                lambda: StoreUnavailableError("the record of the same operation was just pruned", operation_id),
                error,
            )
        except NotAnIntegerError as error:
            return self._record_of_winner(write, lambda: InvalidValueTypeError(write.namespace, write.key), error)
        except OutOfRangeError as error:
            return self._record_of_winner(write, lambda: CounterOverflowError(write.namespace, write.key), error)

    def _record_of_winner(self, write: Write, otherwise: Callable[[], Exception], error: Exception) -> Record:
        """Give the record of the same operation that ran at the same moment, and that this one lost to."""
        record = self._recorded(write.namespace, write.operation_id)
        if record is None:
            raise otherwise() from error.__cause__
        return record

    def _recorded(self, namespace: str, operation_id: str) -> Record | None:
        def read(connection: Any) -> Record | None:
            return self._dialect.recorded(connection, namespace, operation_id)

        return self._session.run(read)

    def _ensure_global_ledger(self) -> None:
        if not self._global_ledger_exists:
            maintenance.ensure_global_ledger(self._session)
            self._global_ledger_exists = True


def _make_write(
    statement: str,
    name: tuple[str, str],
    operation_id: str | None,
    *,
    text: str | None = None,
    ttl_seconds: float | None = None,
    delta: int = 0,
) -> Write:
    namespace, key = check_namespace(name[0]), check_key(name[1])
    checked_id = new_operation_id() if operation_id is None else check_operation_id(operation_id)
    # A counter's first value and delta say together what its initial value was.
    request = json.dumps([statement, key, text, ttl_seconds, delta])
    fingerprint = hashlib.sha256(request.encode()).hexdigest()[:32]
    return Write(statement, namespace, key, checked_id, fingerprint, text, ttl_seconds, delta)


def _remaining(record: Record, expires_at: str, requested_seconds: float | None) -> float | None:
    """What the caller asked for, or what is left of the recorded expiry when it did not ask just now."""
    if not expires_at:
        return None
    if requested_seconds is not None and not record.replayed:
        return requested_seconds
    return max(0.0, float(expires_at) - record.now)
