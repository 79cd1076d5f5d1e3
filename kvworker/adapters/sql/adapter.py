"""The adapter over a SQL database: checks arguments, applies writes once, and turns refusals into errors."""

# ruff: noqa: D102 - what the methods do is said once, in the contract.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.adapters.sql import listing, maintenance
from kvworker.adapters.sql.dialect import (
    SIGNALS,
    Dialect,
    DuplicateOperationError,
    Limits,
    NotAnIntegerError,
    OutOfRangeError,
    QuotaRefusedError,
    Record,
    Write,
)
from kvworker.adapters.sql.engines import ProcessEngine
from kvworker.adapters.sql.executor import Executor
from kvworker.adapters.sql.export import export_entries
from kvworker.adapters.sql.operation_records import Moment, batch_outcomes, step_result
from kvworker.adapters.sql.planned_writes import common_params
from kvworker.adapters.sql.planning import StepRefusedError
from kvworker.adapters.sql.reads import read_entry, read_steps
from kvworker.adapters.sql.recorded_refusals import REFUSALS, check_in_time, is_refusal, noted, refusal_of_this_attempt
from kvworker.adapters.sql.write import make_write
from kvworker.errors import (
    BatchRefusedError,
    CounterOverflowError,
    IdempotencyConflictError,
    InvalidValueTypeError,
    KVStoreError,
    StoreUnavailableError,
)
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
    check_flag,
    check_key,
    check_namespace,
    check_operation_id,
    check_quota,
    check_steps,
)
from kvworker.settings.adapters import SqlAdapterSettings


class SqlAdapter(KeyValueStoreAdapter):
    """A store in a SQL database."""

    def __init__(self, settings: SqlAdapterSettings, dialect: Dialect, engine: ProcessEngine) -> None:
        self._dialect = dialect
        self._executor = Executor(dialect, engine, migrate_on_start=settings.migrate_on_start)
        self._limits = Limits(
            settings.namespace_quota_bytes, settings.global_quota_bytes, settings.operation_retention_seconds
        )
        self._global_ledger_exists = settings.global_quota_bytes is None

    def get(self, namespace: str, key: str) -> GetResult:
        return read_entry(self._executor, check_namespace(namespace), check_key(key))

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
        step = Step(
            "set",
            key,
            value=value,
            ttl_seconds=ttl_seconds,
            expected_version=expected_version,
            if_absent=if_absent,
            keep_ttl=keep_ttl,
        )
        return cast(SetResult, self._take(namespace, step, operation_id))

    def delete(
        self, namespace: str, key: str, *, expected_version: int | None = None, operation_id: str | None = None
    ) -> DeleteResult:
        step = Step("delete", key, expected_version=expected_version)
        return cast(DeleteResult, self._take(namespace, step, operation_id))

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
        step = Step("increment", key, delta=delta, initial_value=initial_value, ttl_seconds=ttl_seconds)
        return cast(IncrementResult, self._take(namespace, step, operation_id))

    def touch(self, namespace: str, key: str, ttl_seconds: float, *, operation_id: str | None = None) -> TouchResult:
        step = Step("touch", key, ttl_seconds=ttl_seconds)
        return cast(TouchResult, self._take(namespace, step, operation_id))

    def persist(self, namespace: str, key: str, *, operation_id: str | None = None) -> TouchResult:
        return cast(TouchResult, self._take(namespace, Step("persist", key), operation_id))

    def batch(
        self, namespace: str, steps: Sequence[Step], *, atomic: bool = True, operation_id: str | None = None
    ) -> BatchResult:
        checked = check_steps(steps)
        tools = tuple(f"kv_{step.action}" for step in checked)
        write = make_write("batch", namespace, operation_id, steps=checked, atomic=check_flag("atomic", atomic))
        if all(step.action == "get" for step in checked):
            return BatchResult(namespace, read_steps(self._executor, write), tools=tools)
        record = self._apply(write)
        moment = Moment(record.now, record.replayed)
        results = tuple(
            step_result(namespace, step, outcome, moment) if isinstance(outcome, str) else outcome
            for step, outcome in zip(checked, batch_outcomes(namespace, checked, record.result), strict=True)
        )
        return BatchResult(namespace, results, record.replayed, tools)

    def apply_many(self, operations: Sequence[Operation]) -> list[StepResult | None]:
        """Take what one statement each does, in one transaction; if anything is in its way, nothing."""
        self._ensure_global_ledger()
        writes = [make_write(one.step.action, one.namespace, one.operation_id, steps=(one.step,)) for one in operations]
        take = partial(self._dialect.apply_many, writes=writes, limits=self._limits)
        try:
            taken = self._executor.run(take)
        except (KVStoreError, *SIGNALS):
            return [None] * len(operations)
        return [
            step_result(one.namespace, one.step, each.result, Moment(each.now, each.replayed))
            if isinstance(each, Record)
            else each
            for one, each in zip(operations, taken, strict=True)
        ]

    def clear(self, namespace: str, *, operation_id: str | None = None) -> ClearResult:
        record = self._apply(make_write("clear", namespace, operation_id))
        deleted_entries, freed_bytes = map(int, record.result.split())
        return ClearResult(namespace, deleted_entries, freed_bytes, record.replayed)

    def set_quota(self, namespace: str, quota_bytes: int | None, *, operation_id: str | None = None) -> QuotaResult:
        write = make_write("set_quota", namespace, operation_id, quota_bytes=check_quota(quota_bytes))
        return QuotaResult(namespace, quota_bytes, self._apply(write).replayed)

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        limit: int = DEFAULT_PAGE_ROWS,
        cursor: str | None = None,
        include_values: bool = False,
    ) -> KeyList:
        return listing.list_keys(
            self._executor,
            check_namespace(namespace),
            listing.key_page(prefix, limit, cursor),
            include_values=check_flag("include_values", include_values),
        )

    def list_namespaces(
        self, *, prefix: str = "", limit: int = DEFAULT_PAGE_ROWS, cursor: str | None = None
    ) -> NamespaceList:
        return listing.list_namespaces(self._executor, listing.namespace_page(prefix, limit, cursor), self._limits)

    def was_applied(self, namespace: str, operation_id: str) -> bool:
        record = self._recorded(check_namespace(namespace), check_operation_id(operation_id))
        return record is not None and not is_refusal(record)

    def sweep_expired(self, *, batch_rows: int = 200, budget_seconds: float = 30.0) -> SweepReport:
        return maintenance.sweep_expired(self._executor, batch_rows=batch_rows, budget_seconds=budget_seconds)

    def prune_operations(self, *, batch_rows: int = 1000, budget_seconds: float = 30.0) -> PruneReport:
        return maintenance.prune_operations(self._executor, batch_rows=batch_rows, budget_seconds=budget_seconds)

    def recompute_ledgers(self, *, after: str | None = None, budget_seconds: float = 30.0) -> RecomputeReport:
        self._ensure_global_ledger()
        return maintenance.recompute_ledgers(self._executor, after=after, budget_seconds=budget_seconds)

    def usage(self, namespace: str | None = None) -> list[LedgerUsage]:
        if namespace is not None:
            return [listing.namespace_usage(self._executor, check_namespace(namespace), self._limits)]
        self._ensure_global_ledger()
        return listing.all_usage(self._executor, self._limits)

    def total_usage(self) -> LedgerUsage:
        return listing.total_usage(self._executor, self._limits)

    def export_entries(self, namespace: str | None = None, *, page_rows: int = 1000) -> Iterator[GetResult]:
        """Yield every live entry, of one namespace or of all, in order; no snapshot is held meanwhile."""
        checked = None if namespace is None else check_namespace(namespace)
        return export_entries(self._executor, checked, page_rows)

    def migrate(self) -> None:
        self._executor.migrate()

    def schema_version(self) -> str:
        return self._executor.schema_version()

    def clock(self) -> float:
        row = self._executor.run(lambda connection: self._dialect.fetch_one(connection, "database_clock", {}))
        return float(row[0])

    def close(self) -> None:
        self._executor.engine.close()

    def _take(self, namespace: str, step: Step, operation_id: str | None) -> StepResult:
        record = self._apply(make_write(step.action, namespace, operation_id, steps=(step,)))
        return step_result(namespace, step, record.result, Moment(record.now, record.replayed))

    def _apply(self, write: Write) -> Record:
        """Apply a write, or find its record. What this attempt was refused before, it is refused again."""
        self._ensure_global_ledger()
        refusals = ""
        while True:
            try:
                record = self._apply_with_room(write)
            except REFUSALS as refusal:
                found = self._keep_refusals(write, refusals + noted(refusal))
                if found is None:
                    raise
                record = found
            if not is_refusal(record):
                break
            refused = refusal_of_this_attempt(record)
            if refused is not None:
                raise refused
            check_in_time()
            refusals += self._withdraw_refusals(write)
        if record.fingerprint != write.fingerprint:
            raise IdempotencyConflictError(write.namespace, write.operation_id)
        return record

    def _keep_refusals(self, write: Write, refusals: str) -> Record | None:
        """Record refusals; if a copy was applied at this moment, give its record instead."""
        if not refusals or self._run_rows("record_refusal", write, result=refusals):
            return None
        return self._recorded(write.namespace, write.operation_id)

    def _withdraw_refusals(self, write: Write) -> str:
        return "".join(row[0] for row in self._run_rows("withdraw_refusals", write))

    def _run_rows(self, statement: str, write: Write, **params: str) -> list[Any]:
        all_params = {**common_params(write, self._limits), **params}
        return self._executor.run(lambda connection: self._dialect.run(connection, statement, all_params).fetchall())

    def _apply_with_room(self, write: Write) -> Record:
        """Apply a write; when a quota refuses it, purge what expired and try again before giving up."""
        while True:
            try:
                return self._apply_once(write)
            except QuotaRefusedError as refusal:
                if refusal.is_global in write.purged:
                    raise maintenance.quota_error(self._executor, write, refusal, self._limits) from refusal.__cause__
                write = replace(write, purged=write.purged | {refusal.is_global})
                maintenance.purge_expired(self._executor, None if refusal.is_global else write.namespace)

    def _apply_once(self, write: Write) -> Record:
        operation_id = write.operation_id
        try:
            return self._executor.run(partial(self._dialect.write, write=write, limits=self._limits), operation_id)
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
            if write.action != "batch":
                raise refused.error from None
            name, args = type(refused.error).__name__, refused.error.args
            raise BatchRefusedError(refused.index, name, args) from refused.error

    def _record_of_winner(self, write: Write, otherwise: Callable[[], Exception]) -> Record:
        """Give the record of the same operation that ran at the same moment, and that this one lost to."""
        record = self._recorded(write.namespace, write.operation_id)
        if record is None:
            raise otherwise() from None
        return record

    def _recorded(self, namespace: str, operation_id: str) -> Record | None:
        def read(connection: Any) -> Record | None:
            return self._dialect.recorded(connection, namespace, operation_id)

        return self._executor.run(read)

    def _ensure_global_ledger(self) -> None:
        if not self._global_ledger_exists:
            maintenance.ensure_global_ledger(self._executor)
            self._global_ledger_exists = True


def _name(write: Write) -> tuple[str, str]:
    return write.namespace, write.steps[0].key
