"""A complete adapter to copy. It keeps its entries in the memory of one process; a forked child gets a copy.

It passes the conformance suite. After ``register_kv_store_adapter("memory", make_adapter)`` a configuration file can
name it. The planner decides what steps do to entries, and operation records keep results as text, both without SQL.
"""

# ruff: noqa: D102 - the contract documents the methods.

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from kvworker import errors, model
from kvworker.adapters import StepAdapter
from kvworker.adapters.sql import operation_records
from kvworker.adapters.sql.operation_records import ResultContext
from kvworker.adapters.sql.planning import Entry, Plan, Planner, Room, StepRefusedError
from kvworker.adapters.sql.signals import QuotaRefusedError
from kvworker.adapters.sql.write import Limits, Record, Write, make_write


class MemoryStore:
    """The data that adapters share. Its lock stands in for a database's transactions."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries: dict[str, dict[str, Entry]] = {}
        self.own_quotas: dict[str, int | None] = {}
        #: Each operation's record, and the instant when it may be pruned.
        self.records: dict[tuple[str, str], tuple[Record, float]] = {}

    def namespaces(self) -> list[str]:
        """Return the namespaces that have entries or their own quota, in order."""
        names = {*self.entries, *self.own_quotas}
        return sorted(name for name in names if self.entries.get(name) or self.own_quotas.get(name))

    def used(self, namespaces: Iterable[str]) -> tuple[int, int]:
        """Return the bytes and the number of entries. A database keeps these sums in ledgers."""
        sizes = [entry.size_bytes for name in namespaces for entry in self.entries.get(name, {}).values()]
        return sum(sizes), len(sizes)


class MemoryAdapter(StepAdapter):
    """An adapter over a ``MemoryStore``."""

    def __init__(self, store: MemoryStore, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def get(self, namespace: str, key: str) -> model.GetResult:
        name, now = (model.check_namespace(namespace), model.check_key(key)), time.time()
        with self._store.lock:
            entry = self._store.entries.get(namespace, {}).get(key, Entry())
        if not entry.is_live(now):
            return model.GetResult(*name, found=False)
        state = entry.text, entry.expires_at, entry.version
        return operation_records.found_result(name, state, ResultContext(now, replayed=False))

    def apply_step(self, namespace: str, step: model.Step, operation_id: str | None) -> model.StepResult:
        record = self._apply(make_write(step.action, namespace, operation_id, steps=(step,)))
        return operation_records.step_result(namespace, step, record.result, ResultContext(record.now, record.replayed))

    def batch(
        self, namespace: str, steps: Sequence[model.Step], *, atomic: bool = True, operation_id: str | None = None
    ) -> model.BatchResult:
        checked = model.check_steps(steps)
        write = make_write("batch", namespace, operation_id, steps=checked, atomic=model.check_flag("atomic", atomic))
        return operation_records.batch_result(namespace, checked, self._apply(write), partial(self._read_again, write))

    def clear(self, namespace: str, *, operation_id: str | None = None) -> model.ClearResult:
        record = self._apply(make_write("clear", namespace, operation_id))
        deleted_entries, freed_bytes = map(int, record.result.split())
        return model.ClearResult(namespace, deleted_entries, freed_bytes, record.replayed)

    def set_quota(
        self, namespace: str, quota_bytes: int | None, *, operation_id: str | None = None
    ) -> model.QuotaResult:
        write = make_write("set_quota", namespace, operation_id, quota_bytes=model.check_quota(quota_bytes))
        return model.QuotaResult(namespace, quota_bytes, self._apply(write).replayed)

    def list_keys(
        self,
        namespace: str,
        *,
        prefix: str = "",
        limit: int = model.DEFAULT_PAGE_ROWS,
        cursor: str | None = None,
        include_values: bool = False,
    ) -> model.KeyList:
        prefix, now = model.check_prefix("prefix", prefix, model.MAX_KEY_BYTES), time.time()
        with_values, read_bytes = model.check_flag("include_values", include_values), 0
        listed: list[model.ListedEntry] = []
        with self._store.lock:
            entries = self._store.entries.get(model.check_namespace(namespace), {})
            live = [key for key, entry in entries.items() if entry.is_live(now)]
            keys, next_cursor = _page(live, prefix, limit, cursor)
            for key in keys:
                read_bytes += (entry := entries[key]).size_bytes
                if with_values and listed and read_bytes > model.MAX_READ_BYTES:
                    next_cursor = listed[-1].key
                    break
                value = model.decode_value(entry.text or "") if with_values else None
                ttl_seconds = None if entry.expires_at is None else entry.expires_at - now
                listed.append(model.ListedEntry(key, entry.version, entry.size_bytes, ttl_seconds, value))
        return model.KeyList(namespace, tuple(listed), next_cursor, with_values)

    def list_namespaces(
        self, *, prefix: str = "", limit: int = model.DEFAULT_PAGE_ROWS, cursor: str | None = None
    ) -> model.NamespaceList:
        prefix, now = model.check_prefix("prefix", prefix, model.MAX_NAMESPACE_BYTES), time.time()
        with self._store.lock:
            live = [name for name, found in self._store.entries.items() if any(e.is_live(now) for e in found.values())]
            names, next_cursor = _page(live, prefix, limit, cursor)
            return model.NamespaceList(tuple(self.usage(name)[0] for name in names), next_cursor)

    def usage(self, namespace: str | None = None) -> list[model.LedgerUsage]:
        with self._store.lock:
            names = self._store.namespaces() if namespace is None else [model.check_namespace(namespace)]
            usage = [model.LedgerUsage(name, *self._store.used([name]), self._quota(name)) for name in names]
            if namespace is None and self._limits.global_bytes is not None:
                usage.append(model.LedgerUsage(None, *self._store.used(names), self._limits.global_bytes))
            return usage

    def was_applied(self, namespace: str, operation_id: str) -> bool:
        return (model.check_namespace(namespace), model.check_operation_id(operation_id)) in self._store.records

    def sweep_expired(self, *, batch_rows: int = 200, budget_seconds: float = 30.0) -> model.SweepReport:
        with self._store.lock:
            now, stored = time.time(), self._store.entries.values()
            old = [(found, key) for found in stored for key in found if not found[key].is_live(now)]
            sizes = [found[key].size_bytes for found, key in old]
            rows, batches, complete = _delete(old, batch_rows, budget_seconds)
            return model.SweepReport(rows, sum(sizes[:rows]), batches, complete)

    def prune_operations(self, *, batch_rows: int = 1000, budget_seconds: float = 30.0) -> model.PruneReport:
        with self._store.lock:
            records, now = self._store.records, time.time()
            old = [(records, name) for name, (_, expires_at) in records.items() if expires_at <= now]
            return model.PruneReport(*_delete(old, batch_rows, budget_seconds))

    def recompute_ledgers(self, *, after: str | None = None, budget_seconds: float = 30.0) -> model.RecomputeReport:
        # A sum is never wrong. An adapter with ledgers would compare each with its entries here.
        with self._store.lock:
            names = [name for name in self._store.namespaces() if name > (after or "")]
        checked = names if budget_seconds > 0 else names[:1]
        return model.RecomputeReport(len(checked), next_after=None if checked == names else checked[-1])

    def clock(self) -> float:
        return time.time()

    def close(self) -> None:
        """Keep the store: other adapters share it."""

    def _apply(self, write: Write) -> Record:
        """Apply a write and record its result, or return the record of the same operation. Reads have no record."""
        name, now = (write.namespace, write.operation_id), time.time()
        only_reads = write.action == "batch" and all(step.action == "get" for step in write.steps)
        with self._store.lock:
            if name in self._store.records and not only_reads:
                record, _ = self._store.records[name]
                if record.fingerprint != write.fingerprint:
                    raise errors.IdempotencyConflictError(*name)
                return replace(record, now=now, replayed=True)
            result, answer = self._change(write, now)
            record = Record(write.fingerprint, result, now, replayed=False)
            if not only_reads:
                self._store.records[name] = record, now + self._limits.retention_seconds
            return replace(record, result=answer)

    def _change(self, write: Write, now: float) -> tuple[str, str]:
        """Change entries or a quota, unless it is refused; return the result for the record and for the caller."""
        if write.action == "clear":
            removed = self._store.entries.pop(write.namespace, {}).values()
            result = f"{sum(entry.is_live(now) for entry in removed)} {sum(entry.size_bytes for entry in removed)}"
            return result, result
        if write.action == "set_quota":
            self._store.own_quotas[write.namespace] = write.quota_bytes
            return "", ""
        try:
            plan = self._plan(write, now)
        except QuotaRefusedError:
            self.sweep_expired()  # Expired entries never cause a refusal.
            plan = self._plan(replace(write, purged=frozenset({"namespace", "store"})), now)
        if write.action == "batch" and plan.read_bytes > model.MAX_READ_BYTES:
            raise errors.ReadTooLargeError(model.MAX_READ_BYTES)
        entries = self._store.entries.setdefault(write.namespace, {})
        entries.update(plan.changed)
        for key in plan.removed:
            entries.pop(key, None)
        if write.action != "batch":
            return operation_records.step_record(write.steps[0], str(plan.outcomes[0])), str(plan.outcomes[0])
        batch = (write.namespace, write.steps, plan.outcomes)
        return operation_records.batch_record(*batch), operation_records.batch_answer(*batch)

    def _read_again(self, write: Write) -> list[model.GetResult]:
        """Read what a batch reads that was applied before: records hold no values."""
        keys = [step.key for step in write.steps if step.action == "get"]
        with self._store.lock:
            entries = self._store.entries.get(write.namespace, {})
            if sum(entries[key].size_bytes for key in keys if key in entries) > model.MAX_READ_BYTES:
                raise errors.ReplayTooLargeError(model.MAX_READ_BYTES)
            return [self.get(write.namespace, key) for key in keys]

    def _plan(self, write: Write, now: float) -> Plan:
        stored = self._store.entries.get(write.namespace, {})
        planner = Planner(write.namespace, now, version=time.time_ns() // 1000)
        used_bytes, all_used_bytes = self._store.used([write.namespace])[0], self._store.used(self._store.entries)[0]
        room = Room(self._quota(write.namespace), used_bytes, self._limits.global_bytes, all_used_bytes, write.purged)
        try:
            entries = {key: stored.get(key, Entry()) for key in write.keys}
            plan = planner.plan(entries, write.steps, None if write.atomic else room)
        except StepRefusedError as refused:
            raise refused.error_for(write.action) from None
        if write.atomic:
            room.charge(write.namespace, plan.grown_bytes)
        return plan

    def _quota(self, namespace: str) -> int:
        return self._store.own_quotas.get(namespace) or self._limits.namespace_bytes


def make_adapter(config: Mapping[str, Any], store: MemoryStore | None = None) -> MemoryAdapter:
    """Make an adapter from its configuration block, which may set the two quotas and the retention of records."""
    quotas = config.get("namespace_quota_bytes", 1_048_576), config.get("global_quota_bytes")
    limits = Limits(*quotas, config.get("operation_retention_seconds", 86_400.0))
    return MemoryAdapter(store or MemoryStore(), limits)


def _page(names: Iterable[str], prefix: str, limit: int, cursor: str | None) -> tuple[list[str], str | None]:
    rows, after = model.check_count("limit", limit, model.MAX_PAGE_ROWS), model.check_cursor(cursor) or ""
    found = sorted(name for name in names if name.startswith(prefix) and name > after)
    return found[:rows], found[rows - 1] if len(found) > rows else None


def _delete(found: Sequence[tuple[Any, Any]], batch_rows: int, budget_seconds: float) -> tuple[int, int, bool]:
    """Delete keys of dicts in batches; return the rows, the batches and whether none is left."""
    rows = model.check_count("batch_rows", batch_rows, model.MAX_BATCH_ROWS)
    deadline, batches = time.monotonic() + budget_seconds, 0
    for start in range(0, len(found), rows):
        if start and time.monotonic() >= deadline:
            return start, batches, False
        for entries, key in found[start : start + rows]:
            del entries[key]
        batches += 1
    return len(found), batches, True
