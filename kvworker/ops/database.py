"""Database maintenance without the queue: open an adapter, migrate the schema, sweep, and recompute ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.providers import adapters_in_use
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.errors import ConfigurationError
from kvworker.model import LedgerDrift, LedgerUsage, RecomputeReport, SweepReport
from kvworker.settings import Settings


@dataclass(frozen=True)
class SweepTotals:
    """The sum of a complete sweep over all adapters in use."""

    deleted_rows: int
    freed_bytes: int


@dataclass(frozen=True)
class RecomputeTotals:
    """The sum of a complete recompute over all adapters in use; ``drifts`` are the ledgers that were corrected."""

    checked_namespaces: int
    drifts: tuple[LedgerDrift, ...]


def open_adapter(settings: Settings, name: str | None = None) -> KeyValueStoreAdapter:
    """Open an adapter in this process. Close it after use.

    Args:
        settings: The settings that configure the adapter.
        name: The adapter's name; None opens the default adapter.

    Raises:
        ConfigurationError: No such adapter exists, or its configuration is wrong.
    """
    return create_kv_store_adapter(*settings.store.adapter_config(name))


def open_sql_adapter(settings: Settings) -> SqlAdapter:
    """Open the default adapter for work that only the bundled SQL adapters support. Close it after use.

    Raises:
        ConfigurationError: The default adapter is not one of the bundled ones.
    """
    adapter = open_adapter(settings)
    if isinstance(adapter, SqlAdapter):
        return adapter
    adapter.close()
    raise ConfigurationError(
        f"the adapter {settings.store.default_adapter!r} does not support this; only postgres and sqlite do"
    )


def store_usage(settings: Settings, namespace: str | None = None) -> list[LedgerUsage]:
    """Read from the database what one namespace uses, or every namespace and the whole store.

    Raises:
        ConfigurationError: No database is configured.
        SchemaError: The database has no schema yet, or the schema of another version.
        StoreUnavailableError: The database cannot be reached.
    """
    with open_adapter(settings) as adapter:
        return list(adapter.usage(namespace))


def sweep_store(settings: Settings) -> SweepTotals:
    """Delete every expired entry of every adapter in use, in batches of ``maintenance.sweep_batch_rows``.

    Raises:
        ConfigurationError: No database is configured.
        StoreUnavailableError: A database cannot be reached.
    """
    reports = [report for name in adapters_in_use(settings) for report in _sweep_adapter(settings, name)]
    return SweepTotals(sum(report.deleted_rows for report in reports), sum(report.freed_bytes for report in reports))


def recompute_store(settings: Settings) -> RecomputeTotals:
    """Set every ledger of every adapter in use to what its entries really use.

    Raises:
        ConfigurationError: No database is configured.
        StoreUnavailableError: A database cannot be reached.
    """
    reports = [report for name in adapters_in_use(settings) for report in _recompute_adapter(settings, name)]
    return RecomputeTotals(
        sum(report.checked_namespaces for report in reports),
        tuple(drift for report in reports for drift in report.drifts),
    )


def _sweep_adapter(settings: Settings, name: str) -> Iterator[SweepReport]:
    limits = settings.maintenance
    with open_adapter(settings, name) as adapter:
        complete = False
        while not complete:
            report = adapter.sweep_expired(
                batch_rows=limits.sweep_batch_rows, budget_seconds=limits.sweep_budget_seconds
            )
            yield report
            complete = report.complete


def _recompute_adapter(settings: Settings, name: str) -> Iterator[RecomputeReport]:
    budget_seconds, after = settings.maintenance.recompute_budget_seconds, None
    with open_adapter(settings, name) as adapter:
        complete = False
        while not complete:
            report = adapter.recompute_ledgers(after=after, budget_seconds=budget_seconds)
            yield report
            after, complete = report.next_after, report.complete
