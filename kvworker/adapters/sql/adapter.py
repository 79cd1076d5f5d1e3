"""The adapter over a SQL database: checks arguments, runs writes and reads, and builds results."""

# ruff: noqa: D102 - the contract documents the methods.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from kvworker.adapters.sql import inspection, listing, maintenance
from kvworker.adapters.sql.dialect import Dialect
from kvworker.adapters.sql.engines import ProcessEngine
from kvworker.adapters.sql.executor import Executor, InspectionExecutor
from kvworker.adapters.sql.operation_records import ResultContext, batch_result, step_result, tools_of
from kvworker.adapters.sql.reads import export_entries, read_entry, read_steps, read_steps_again
from kvworker.adapters.sql.recorded_refusals import is_refusal
from kvworker.adapters.sql.signals import SIGNALS, NamespaceMissingError
from kvworker.adapters.sql.verification import OnProgress, Verification
from kvworker.adapters.sql.write import Limits, Record, Write, make_write
from kvworker.adapters.sql.writer import Writer
from kvworker.adapters.step_adapter import StepAdapter
from kvworker.errors import KVStoreError
from kvworker.model import (
    DEFAULT_PAGE_ROWS,
    BatchResult,
    ClearResult,
    DatabaseConnections,
    ExpiryReport,
    GetResult,
    KeyList,
    LedgerUsage,
    NamespaceList,
    Operation,
    PoolUse,
    PruneReport,
    QuotaResult,
    RecomputeReport,
    Step,
    StepResult,
    StoreProblem,
    SweepReport,
    TableSize,
    UsagePage,
    UsageQuery,
    VerifyReport,
    check_flag,
    check_key,
    check_namespace,
    check_operation_id,
    check_quota,
    check_steps,
)
from kvworker.settings.adapters import SqlAdapterSettings

if TYPE_CHECKING:
    from kvworker.adapters.sql.migrations import PlannedStep


class SqlAdapter(StepAdapter):
    """A store in a SQL database."""

    def __init__(self, settings: SqlAdapterSettings, dialect: Dialect, engine: ProcessEngine) -> None:
        self._dialect = dialect
        self._executor = Executor(dialect, engine, migrate_on_start=settings.migrate_on_start)
        self._inspector = InspectionExecutor(dialect, engine, migrate_on_start=settings.migrate_on_start)
        self._limits = Limits(
            settings.namespace_quota_bytes,
            settings.global_quota_bytes,
            settings.operation_retention_seconds,
            settings.entry_limit,
            settings.record_limit,
            settings.namespace_limit,
            min(settings.generated_id_retention_seconds, settings.operation_retention_seconds),
        )
        self._writer = Writer(self._executor, self._limits)

    def get(self, namespace: str, key: str) -> GetResult:
        return read_entry(self._executor, check_namespace(namespace), check_key(key))

    def apply_step(self, namespace: str, step: Step, operation_id: str | None) -> StepResult:
        record = self._writer.apply(make_write(step.action, namespace, operation_id, steps=(step,)))
        return step_result(namespace, step, record.result, ResultContext(record.now, record.replayed))

    def batch(
        self, namespace: str, steps: Sequence[Step], *, atomic: bool = True, operation_id: str | None = None
    ) -> BatchResult:
        checked = check_steps(steps)
        write = make_write("batch", namespace, operation_id, steps=checked, atomic=check_flag("atomic", atomic))
        if all(step.action == "get" for step in checked):
            return BatchResult(namespace, read_steps(self._executor, write), tools=tools_of(checked))
        record = self._writer.apply(write)
        return batch_result(namespace, checked, record, partial(read_steps_again, self._executor, write))

    def apply_many(self, operations: Sequence[Operation]) -> list[StepResult | None]:
        """Apply the operations in one transaction. If any error occurs, none is applied."""
        self._writer.ensure_global_ledger()
        writes = [
            make_write(operation.step.action, operation.namespace, operation.operation_id, steps=(operation.step,))
            for operation in operations
        ]
        try:
            outcomes = self._apply_together(writes)
        except (KVStoreError, *SIGNALS):
            return [None] * len(operations)
        return [
            step_result(
                operation.namespace, operation.step, outcome.result, ResultContext(outcome.now, outcome.replayed)
            )
            if isinstance(outcome, Record)
            else outcome
            for operation, outcome in zip(operations, outcomes, strict=True)
        ]

    def _apply_together(self, writes: Sequence[Write]) -> list[Record | GetResult | None]:
        work = partial(self._dialect.apply_many, writes=writes, limits=self._limits)
        try:
            return self._executor.run(work, operation="apply_many")
        except NamespaceMissingError:
            for namespace in sorted({write.namespace for write in writes if write.action != "get"}):
                self._writer.found_namespace(namespace)
            return self._executor.run(work, operation="apply_many")

    def clear(self, namespace: str, *, operation_id: str | None = None) -> ClearResult:
        record = self._writer.apply(make_write("clear", namespace, operation_id))
        deleted_entries, freed_bytes = map(int, record.result.split())
        return ClearResult(namespace, deleted_entries, freed_bytes, record.replayed)

    def set_quota(self, namespace: str, quota_bytes: int | None, *, operation_id: str | None = None) -> QuotaResult:
        write = make_write("set_quota", namespace, operation_id, quota_bytes=check_quota(quota_bytes))
        return QuotaResult(namespace, quota_bytes, self._writer.apply(write).replayed)

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
        record = self._writer.find_record(check_namespace(namespace), check_operation_id(operation_id))
        return record is not None and not is_refusal(record)

    def sweep_expired(self, *, batch_rows: int = 200, budget_seconds: float = 30.0) -> SweepReport:
        return maintenance.sweep_expired(self._executor, batch_rows=batch_rows, budget_seconds=budget_seconds)

    def prune_operations(self, *, batch_rows: int = 1000, budget_seconds: float = 30.0) -> PruneReport:
        return maintenance.prune_operations(self._executor, batch_rows=batch_rows, budget_seconds=budget_seconds)

    def recompute_ledgers(self, *, after: str | None = None, budget_seconds: float = 30.0) -> RecomputeReport:
        self._writer.ensure_global_ledger()
        return maintenance.recompute_ledgers(self._executor, after=after, budget_seconds=budget_seconds)

    def usage(self, namespace: str | None = None) -> list[LedgerUsage]:
        if namespace is not None:
            return [listing.namespace_usage(self._executor, check_namespace(namespace), self._limits)]
        self._writer.ensure_global_ledger()
        return listing.all_usage(self._executor, self._limits)

    def total_usage(self) -> LedgerUsage:
        return listing.total_usage(self._inspector, self._limits)

    def rank_usage(self, query: UsageQuery) -> UsagePage:
        return inspection.rank_usage(self._inspector, query.checked(), self._limits)

    def expiry_report(self) -> ExpiryReport:
        return inspection.expiry_report(self._inspector)

    def table_sizes(self) -> tuple[TableSize, ...]:
        return inspection.table_sizes(self._inspector)

    def database_connections(self) -> DatabaseConnections | None:
        return self._executor.run_unchecked(self._dialect.connections)

    def pool_use(self) -> PoolUse | None:
        return self._executor.engine.pool_use()

    def export_entries(self, namespace: str | None = None, *, page_rows: int = 1000) -> Iterator[GetResult]:
        """Yield every live entry of one namespace, or of all, in order of namespace and key.

        Args:
            namespace: The namespace to export; None exports all.
            page_rows: The most entries that a statement reads. No snapshot is held between statements.
        """
        checked = None if namespace is None else check_namespace(namespace)
        return export_entries(self._executor, checked, page_rows)

    def knows(self, namespace: str) -> bool:
        """Return whether a namespace has entries or its own quota, or had an entry that a recorded operation changed.

        An operation that found nothing, such as a clear of a mistyped namespace, makes it no better known.
        """
        return listing.is_known(self._executor, check_namespace(namespace))

    def own_quotas(self, namespace: str | None = None) -> dict[str, int]:
        """Return the own quota in bytes of each namespace that has one, or only of the one that is named."""
        return listing.own_quotas(self._executor, None if namespace is None else check_namespace(namespace))

    def verify(self, on_progress: OnProgress = lambda _checked_entries: None) -> VerifyReport:
        """Check in one snapshot that the tables agree with each other."""
        self._executor.inspect(lambda _connection: None)
        differences = self._executor.schema_differences()
        if differences:
            # Statements that read the rows may fail.
            problems = tuple(StoreProblem("schema", None, difference) for difference in differences)
            return VerifyReport(0, 0, 0, len(problems), problems)
        return self._executor.inspect(lambda connection: Verification(self._dialect, connection, on_progress).run())

    def migrate(self, *, finish: bool = False) -> None:
        """Create or update the schema, so that workers of this release and of the previous one can use it.

        Args:
            finish: End the support of the previous release.
        """
        self._executor.migrate(finish=finish)

    def plan_migration(self, *, finish: bool = False) -> tuple[list[PlannedStep], str]:
        """Return the steps that ``migrate`` would make now, and the same as a SQL script. It changes nothing."""
        return self._executor.plan_migration(finish=finish)

    def schema_version(self) -> str:
        return self._executor.schema_version()[0]

    def expanded_version(self) -> str | None:
        """Return the newer version that the schema is expanded to, or None if its migration is finished."""
        version, expanded = self._executor.schema_version()
        return expanded if expanded and expanded > version else None

    def files_open_to_others(self) -> list[Path]:
        """Return the files of the database that any user of this machine can read or write; a server's are not."""
        return self._dialect.files_open_to_others()

    def check_schema(self) -> None:
        """Check that this release works with the schema.

        Raises:
            SchemaError: it does not.
        """
        self._executor.inspect(lambda _connection: None)

    def check_usable(self) -> None:
        self._executor.run(self._dialect.check_usable)

    def clock(self) -> float:
        row = self._executor.run(lambda connection: self._dialect.fetch_one(connection, "database_clock", {}))
        return float(row[0])

    def close(self) -> None:
        self._executor.engine.close()
