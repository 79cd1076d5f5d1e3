"""Sweeps, prunes, purges and recomputes, each in short transactions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NamedTuple

from kvworker.adapters.sql.dialect import Ledger
from kvworker.adapters.sql.executor import Executor
from kvworker.adapters.sql.schema import GLOBAL_LEDGER
from kvworker.adapters.sql.signals import QuotaRefusedError
from kvworker.adapters.sql.statements import StatementName
from kvworker.adapters.sql.write import Limits, Quota, Write
from kvworker.errors import (
    GlobalQuotaExceededError,
    InvalidRequestError,
    LimitExceededError,
    NamespaceQuotaExceededError,
    QuotaExceededError,
)
from kvworker.model import MAX_BATCH_ROWS, LedgerDrift, PruneReport, RecomputeReport, SweepReport, check_integer

_PURGE_BATCH_ROWS: Final = 1000
#: The most expired entries that one search of a sweep finds: enough to fill several batches.
_SEARCH_ROWS: Final = 2000
#: The time that a write at the limit of operation records waits for a prune.
_PRUNE_SECONDS: Final = 2.0
#: A recompute counts up to this many operation records of a namespace, since writers wait for it. Where there are more,
#: it trusts the ledger.
_MOST_RECORDS: Final = 200_000


def sweep_expired(executor: Executor, *, batch_rows: int, budget_seconds: float) -> SweepReport:
    """Delete expired entries in batches until none is left or the budget is spent."""
    return SweepReport(*_run_batches(_sweep(executor, _check_batch_rows(batch_rows)), budget_seconds))


def prune_operations(executor: Executor, *, batch_rows: int, budget_seconds: float) -> PruneReport:
    """Delete records past their retention in batches until none is left or the budget is spent."""
    batches_of_rows = _prune(executor, _check_batch_rows(batch_rows))
    deleted_rows, _, batches, complete = _run_batches(batches_of_rows, budget_seconds)
    return PruneReport(deleted_rows, batches, complete)


def purge_expired(executor: Executor, namespace: str | None) -> None:
    """Delete every expired entry of a namespace, or of all, waiting for the writers of locked ones."""
    params = {"batch_rows": _PURGE_BATCH_ROWS, "namespace": namespace}
    rows = 1
    # Until nothing is left: a batch may also be short because a row was rewritten while it waited for the lock.
    while rows:
        rows, _ = executor.run(lambda connection: executor.dialect.delete_expired(connection, "purge_batch", params))


def make_room(executor: Executor, namespace: str, quota: Quota) -> None:
    """Delete expired entries and records that count against a quota or a limit."""
    purge_expired(executor, namespace if quota in {"namespace", "entries", "records"} else None)
    if quota in {"records", "namespaces"}:
        prune_operations(executor, batch_rows=_PURGE_BATCH_ROWS, budget_seconds=_PRUNE_SECONDS)
    if quota == "namespaces":
        executor.run(executor.dialect.remove_empty_ledgers)


def count_namespaces(executor: Executor) -> int:
    """Return the number of namespaces that have entries, operation records or an own quota."""
    row = executor.run(lambda connection: executor.dialect.fetch_one(connection, "count_namespaces", {}))
    return row[0] if row else 0


def quota_error(executor: Executor, write: Write, refusal: QuotaRefusedError, limits: Limits) -> QuotaExceededError:
    """Make the error for a refused write from the current state of its ledger."""
    params = {"namespace": GLOBAL_LEDGER if refusal.quota == "store" else write.namespace}
    row = executor.run(lambda connection: executor.dialect.fetch_one(connection, "ledger_usage", params))
    ledger = Ledger(*(row or (0, 0, 0)))
    if refusal.quota == "store":
        return GlobalQuotaExceededError(limits.global_bytes or 0, ledger.used_bytes, refusal.requested_bytes)
    if refusal.quota == "entries":
        limit = limits.entries * ledger.limit_factor
        return LimitExceededError("entries", write.namespace, limit, ledger.entry_count)
    if refusal.quota == "records":
        limit = limits.records * ledger.limit_factor
        return LimitExceededError("records", write.namespace, limit, ledger.record_count)
    quota_bytes = limits.namespace_bytes if ledger.quota_bytes is None else ledger.quota_bytes
    return NamespaceQuotaExceededError(write.namespace, quota_bytes, ledger.used_bytes, refusal.requested_bytes)


def ensure_global_ledger(executor: Executor) -> None:
    """Start global accounting if this store has none yet. Writers wait while the entries are counted."""

    def work(connection: Any) -> None:
        """Create the ledger while all other ledgers are locked, unless another process has done so."""
        dialect = executor.dialect
        if dialect.fetch_one(connection, "ledger_usage", {"namespace": GLOBAL_LEDGER}) is None:
            with dialect.transaction(connection):
                dialect.run(connection, "lock_ledgers", {})
                dialect.run(connection, "create_global_ledger", {})

    executor.run(work)


def recompute_ledgers(executor: Executor, *, after: str | None, budget_seconds: float) -> RecomputeReport:
    """Correct each ledger in its own transaction, and last the global one, as the sum of the others."""
    deadline = time.monotonic() + budget_seconds
    drifts: list[LedgerDrift | None] = []
    for namespace in _namespaces(executor, after):
        if drifts and time.monotonic() >= deadline:
            return RecomputeReport(len(drifts), _without_none(drifts), next_after=after)
        drifts.append(executor.run(partial(_recompute, executor, namespace=namespace)))
        after = namespace
    checked = len(drifts)
    drifts.append(executor.run(partial(_recompute_global, executor)))
    executor.run(partial(_recount_namespaces, executor))
    return RecomputeReport(checked, _without_none(drifts))


class _Batch(NamedTuple):
    rows: int
    freed_bytes: int
    is_last: bool


def _sweep(executor: Executor, batch_rows: int) -> Iterator[_Batch]:
    """Delete expired entries batch by batch.

    One search finds the entries of many batches and sorts them by namespace, so that each batch touches few ledgers.
    The next search begins where this one ended, which skips entries that other transactions hold, and dead ones that a
    long transaction keeps in the index.
    """
    after, wanted_rows, is_last = None, 0, False
    while not is_last:
        wanted_rows = min(max(wanted_rows, batch_rows, _SEARCH_ROWS), MAX_BATCH_ROWS)
        find = partial(_find_expired, executor, batch_rows=batch_rows, found_rows=wanted_rows, after=after)
        batches, found_rows, until = executor.run(find)
        is_last = found_rows < wanted_rows
        deleted_rows = 0
        for number, (tables, places) in enumerate(batches, 1):
            params = {"tables": tables, "places": places}
            delete = partial(executor.dialect.delete_expired, statement="sweep_batch", params=params)
            rows, freed_bytes = executor.run(delete)
            deleted_rows += rows
            yield _Batch(rows, freed_bytes, is_last and number == len(batches))
        if until != after:
            wanted_rows = 0
        elif deleted_rows < found_rows / 2:
            # Others hold or deleted most entries of this instant: look beyond them.
            is_last = is_last or wanted_rows == MAX_BATCH_ROWS
            wanted_rows *= 2
        after = until


def _find_expired(
    executor: Executor, connection: Any, **params: float | None
) -> tuple[list[tuple[str | None, str]], int, float | None]:
    """Find entries that expired at an instant or later; return batches, the number of entries and the last expiry."""
    rows = executor.dialect.run(connection, "find_expired", params).fetchall()
    *_, found_rows, until = rows[0] if rows else (0, None)
    return [(tables, places) for tables, places, *_ in rows], found_rows, until


def _prune(executor: Executor, batch_rows: int) -> Iterator[_Batch]:
    """Delete records batch by batch. Each begins where the last one ended, for the same reason as in a sweep."""
    statements: tuple[StatementName, ...] = ("prune_previous_batch", "prune_batch")
    for statement in statements:
        after, is_last = None, False
        while not is_last:
            params = {"batch_rows": batch_rows, "after": after}
            work = partial(executor.dialect.prune_records, statement=statement, params=params)
            rows, found_rows, after = executor.run(work)
            is_last = found_rows < batch_rows
            yield _Batch(rows, 0, is_last and statement == statements[-1])


def _run_batches(batches: Iterator[_Batch], budget_seconds: float) -> tuple[int, int, int, bool]:
    """Run batches until none is left or the budget is spent.

    Returns:
        The deleted rows, their bytes, the number of batches that deleted any, and whether none is left.
    """
    deadline = time.monotonic() + budget_seconds
    rows = freed_bytes = count = 0
    for batch in batches:
        rows, freed_bytes, count = rows + batch.rows, freed_bytes + batch.freed_bytes, count + (batch.rows > 0)
        if not batch.is_last and time.monotonic() >= deadline:
            return rows, freed_bytes, count, False
    return rows, freed_bytes, count, True


def _check_batch_rows(batch_rows: int) -> int:
    if not 1 <= check_integer("batch_rows", batch_rows) <= MAX_BATCH_ROWS:
        raise InvalidRequestError(f"batch_rows must be from 1 to {MAX_BATCH_ROWS:,}, not {batch_rows:,}")
    return batch_rows


def _namespaces(executor: Executor, after: str | None) -> Iterator[str]:
    params = {"after": after or ""}

    def _read(connection: Any) -> str | None:
        row = executor.dialect.fetch_one(connection, "next_namespace", params)
        return None if row is None else row[0]

    while (namespace := executor.run(_read)) is not None:
        yield namespace
        params["after"] = namespace


def _recompute(executor: Executor, connection: Any, namespace: str) -> LedgerDrift | None:
    dialect, params, added = executor.dialect, {"namespace": namespace}, 0
    with dialect.transaction(connection):
        recorded = dialect.lock_ledger(connection, namespace)
        if recorded is None:
            added = int(dialect.fetch_one(connection, "create_ledger", params) is not None)
            recorded = dialect.lock_ledger(connection, namespace) or Ledger(0, 0, 0)
        summed = dialect.fetch_one(connection, "sum_entries", {**params, "most_records": _MOST_RECORDS})
        used_bytes, entry_count, record_count = summed
        if record_count >= _MOST_RECORDS:
            record_count = max(record_count, recorded.record_count)
        actual = recorded._replace(used_bytes=used_bytes, entry_count=entry_count, record_count=record_count)
        if actual.entry_count == actual.record_count == 0:
            added -= dialect.fetch_one(connection, "remove_ledger", params) is not None
        if recorded != actual:
            dialect.run(connection, "correct_ledger", {**params, **actual._asdict()})
        if added:
            # Last, as a founded namespace does: all of them are counted in one row.
            dialect.run(connection, "add_namespaces", {"added": added})
    return _drift(namespace, recorded, actual)


def _recompute_global(executor: Executor, connection: Any) -> LedgerDrift | None:
    dialect, params = executor.dialect, {"namespace": GLOBAL_LEDGER}
    with dialect.transaction(connection):
        recorded = dialect.lock_ledger(connection, GLOBAL_LEDGER)
        if recorded is None:
            return None
        used_bytes, entry_count, _ = dialect.fetch_one(connection, "sum_ledgers", {})
        actual = recorded._replace(used_bytes=used_bytes, entry_count=entry_count)
        if recorded != actual:
            dialect.run(connection, "correct_ledger", {**params, **actual._asdict()})
    return _drift(None, recorded, actual)


def _recount_namespaces(executor: Executor, connection: Any) -> None:
    dialect = executor.dialect
    with dialect.transaction(connection):
        dialect.fetch_one(connection, "lock_namespaces", {})
        dialect.run(connection, "correct_namespaces", {})


def _drift(namespace: str | None, recorded: Ledger, actual: Ledger) -> LedgerDrift | None:
    if recorded == actual:
        return None
    return LedgerDrift(
        namespace,
        recorded_bytes=recorded.used_bytes,
        actual_bytes=actual.used_bytes,
        recorded_entries=recorded.entry_count,
        actual_entries=actual.entry_count,
        recorded_records=recorded.record_count,
        actual_records=actual.record_count,
    )


def _without_none(drifts: list[LedgerDrift | None]) -> tuple[LedgerDrift, ...]:
    return tuple(drift for drift in drifts if drift is not None)
