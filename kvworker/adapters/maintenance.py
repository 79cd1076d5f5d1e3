"""Looking after the ledgers and removing what is past its time, in short transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from kvworker.adapters.dialect import Limits, QuotaRefusedError, Write
from kvworker.adapters.schema import GLOBAL_LEDGER
from kvworker.adapters.session import Session
from kvworker.errors import (
    GlobalQuotaExceededError,
    InvalidRequestError,
    NamespaceQuotaExceededError,
    QuotaExceededError,
)
from kvworker.model import LedgerDrift, PruneReport, RecomputeReport, SweepReport

_PURGE_BATCH_ROWS = 1000


def sweep_expired(session: Session, *, batch_rows: int, budget_seconds: float) -> SweepReport:
    """Delete expired entries until none is left or time is up."""
    params = {"batch_rows": _checked(batch_rows)}

    def batch(connection: Any) -> tuple[int, int]:
        return session.dialect.delete_expired(connection, "sweep_batch", params)

    deleted_rows, freed_bytes, batches, complete = _repeat(session, batch, batch_rows, budget_seconds)
    return SweepReport(deleted_rows, freed_bytes, batches, complete)


def prune_operations(session: Session, *, batch_rows: int, budget_seconds: float) -> PruneReport:
    """Delete records past their retention until none is left or time is up."""
    params = {"batch_rows": _checked(batch_rows)}

    def batch(connection: Any) -> tuple[int, int]:
        return session.dialect.prune_records(connection, params), 0

    deleted_rows, _, batches, complete = _repeat(session, batch, batch_rows, budget_seconds)
    return PruneReport(deleted_rows, batches, complete)


def purge_expired(session: Session, namespace: str | None) -> None:
    """Delete every expired entry of a namespace, or of all, waiting for those that somebody works on."""
    params = {"batch_rows": _PURGE_BATCH_ROWS, "namespace": namespace}
    rows = 1
    # Until nothing is left: a batch is short as well when a row was written anew while it waited for it.
    while rows:
        rows, _ = session.run(lambda connection: session.dialect.delete_expired(connection, "purge_batch", params))


def quota_error(session: Session, write: Write, refusal: QuotaRefusedError, limits: Limits) -> QuotaExceededError:
    """Give the error for a refused write, from what its ledger is now."""
    used_bytes, own_quota = session.run(partial(_refusing_ledger, session, write=write, refusal=refusal))
    requested_bytes = refusal.requested_bytes
    if refusal.is_global:
        return GlobalQuotaExceededError(limits.global_bytes or 0, used_bytes, requested_bytes)
    quota_bytes = limits.namespace_bytes if own_quota is None else own_quota
    return NamespaceQuotaExceededError(write.namespace, quota_bytes, used_bytes, requested_bytes)


def _refusing_ledger(
    session: Session, connection: Any, write: Write, refusal: QuotaRefusedError
) -> tuple[int, int | None]:
    params = {"namespace": GLOBAL_LEDGER if refusal.is_global else write.namespace}
    used_bytes, _, own_quota = session.dialect.fetch_one(connection, "ledger_usage", params) or (0, 0, None)
    return used_bytes, own_quota


def ensure_global_ledger(session: Session) -> None:
    """Start global accounting if this store has none yet. Writers wait while it is counted."""

    def work(connection: Any) -> None:
        dialect = session.dialect
        if dialect.fetch_one(connection, "ledger_usage", {"namespace": GLOBAL_LEDGER}) is None:
            with dialect.transaction(connection):
                dialect.run(connection, "lock_ledgers", {})
                dialect.run(connection, "create_global_ledger", {})

    session.run(work)


def recompute_ledgers(session: Session, *, after: str | None, budget_seconds: float) -> RecomputeReport:
    """Correct each ledger in its own transaction; the global one, as the sum of the others, last."""
    deadline = time.monotonic() + budget_seconds
    drifts: list[LedgerDrift | None] = []
    for namespace in _namespaces(session, after):
        if drifts and time.monotonic() >= deadline:
            return RecomputeReport(len(drifts), _wrong(drifts), next_after=after)
        drifts.append(session.run(partial(_recompute, session, namespace=namespace)))
        after = namespace
    checked = len(drifts)
    drifts.append(session.run(partial(_recompute_global, session)))
    return RecomputeReport(checked, _wrong(drifts))


def _repeat(
    session: Session, batch: Callable[[Any], tuple[int, int]], batch_rows: int, budget_seconds: float
) -> tuple[int, int, int, bool]:
    deadline = time.monotonic() + budget_seconds
    total_rows = total_bytes = batches = 0
    while True:
        rows, freed_bytes = session.run(batch)
        total_rows, total_bytes, batches = total_rows + rows, total_bytes + freed_bytes, batches + (rows > 0)
        if rows < batch_rows:
            return total_rows, total_bytes, batches, True
        if time.monotonic() >= deadline:
            return total_rows, total_bytes, batches, False


def _checked(batch_rows: int) -> int:
    if batch_rows < 1:
        raise InvalidRequestError(f"batch_rows must be at least 1, not {batch_rows}")
    return batch_rows


def _namespaces(session: Session, after: str | None) -> Iterator[str]:
    params = {"after": after or ""}

    def read(connection: Any) -> str | None:
        row = session.dialect.fetch_one(connection, "next_namespace", params)
        return None if row is None else row[0]

    while (namespace := session.run(read)) is not None:
        yield namespace
        params["after"] = namespace


def _recompute(session: Session, connection: Any, namespace: str) -> LedgerDrift | None:
    dialect, params = session.dialect, {"namespace": namespace}
    with dialect.transaction(connection):
        ledger = dialect.lock_ledger(connection, namespace)
        if ledger is None:
            dialect.run(connection, "create_ledger", params)
            ledger = dialect.lock_ledger(connection, namespace) or (0, 0, None)
        recorded = ledger[:2]
        actual = dialect.fetch_one(connection, "sum_entries", params)
        if actual[1] == 0:
            dialect.run(connection, "remove_ledger", params)
        if recorded != actual:
            dialect.run(connection, "correct_ledger", {**params, "used_bytes": actual[0], "entry_count": actual[1]})
    return _drift(namespace, recorded, actual)


def _recompute_global(session: Session, connection: Any) -> LedgerDrift | None:
    dialect, params = session.dialect, {"namespace": GLOBAL_LEDGER}
    with dialect.transaction(connection):
        ledger = dialect.lock_ledger(connection, GLOBAL_LEDGER)
        if ledger is None:
            return None
        recorded = ledger[:2]
        actual = dialect.fetch_one(connection, "sum_ledgers", {})
        if recorded != actual:
            dialect.run(connection, "correct_ledger", {**params, "used_bytes": actual[0], "entry_count": actual[1]})
    return _drift(None, recorded, actual)


def _drift(namespace: str | None, recorded: tuple[int, int], actual: tuple[int, int]) -> LedgerDrift | None:
    if tuple(recorded) == tuple(actual):
        return None
    return LedgerDrift(
        namespace,
        recorded_bytes=recorded[0],
        actual_bytes=actual[0],
        recorded_entries=recorded[1],
        actual_entries=actual[1],
    )


def _wrong(drifts: list[LedgerDrift | None]) -> tuple[LedgerDrift, ...]:
    return tuple(drift for drift in drifts if drift is not None)
