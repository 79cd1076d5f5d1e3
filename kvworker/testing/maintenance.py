"""Cases: sweep, prune and recompute keep to their bounds and report their work; usage reports the ledgers."""

# ruff: noqa: S101 - these are tests.

from __future__ import annotations

from typing import Any

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import InvalidRequestError
from kvworker.model import LedgerUsage, PruneReport, RecomputeReport, SweepReport
from kvworker.testing.support import (
    SHORT_TTL_SECONDS,
    AdapterFactory,
    Cases,
    eventually,
    global_ledger,
    ledger,
    wait_for_expiry,
)


class MaintenanceCases(Cases):
    """Sweeps, prunes, recomputes and usage."""

    def test_a_sweep_removes_only_expired_entries(self, adapter: KeyValueStoreAdapter) -> None:
        """A sweep deletes the expired entries of all namespaces, frees their bytes and reports both."""
        for key in "abc":
            adapter.set("one", key, "12", ttl_seconds=SHORT_TTL_SECONDS)
        adapter.set("two", "a", "12", ttl_seconds=SHORT_TTL_SECONDS)
        adapter.set("one", "later", 1, ttl_seconds=600)
        adapter.set("one", "never", 1)
        wait_for_expiry(adapter, "one", *"abc")
        wait_for_expiry(adapter, "two", "a")
        assert ledger(adapter, "one") == (14, 5)
        assert adapter.sweep_expired() == SweepReport(deleted_rows=4, freed_bytes=16, batches=1, complete=True)
        assert ledger(adapter, "one") == (2, 2)
        assert ledger(adapter, "two") == (0, 0)
        assert adapter.sweep_expired() == SweepReport(deleted_rows=0, freed_bytes=0, batches=0, complete=True)

    def test_a_sweep_keeps_the_live_entries_of_every_namespace(self, adapter: KeyValueStoreAdapter) -> None:
        """A sweep keeps live entries, wherever the store places them among expired ones."""
        for number in range(20):
            adapter.set(f"expired {number}", "key", 1, ttl_seconds=SHORT_TTL_SECONDS)
            adapter.set(f"live {number}", "key", 1, ttl_seconds=600)
        wait_for_expiry(adapter, "expired 19", "key")
        report = adapter.sweep_expired(batch_rows=3)
        assert (report.deleted_rows, report.batches, report.complete) == (20, 7, True)
        assert all(adapter.get(f"live {number}", "key").found for number in range(20))
        assert adapter.recompute_ledgers().drifts == ()

    def test_a_sweep_works_in_batches(self, adapter: KeyValueStoreAdapter) -> None:
        """A sweep deletes at most ``batch_rows`` entries in one transaction and continues while any are left."""
        for number in range(7):
            adapter.set("namespace", str(number), 1, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", *map(str, range(7)))
        assert adapter.sweep_expired(batch_rows=3).to_dict() == {
            "deleted_rows": 7,
            "freed_bytes": 7,
            "batches": 3,
            "complete": True,
        }

    def test_a_sweep_keeps_to_its_budget(self, adapter: KeyValueStoreAdapter) -> None:
        """A sweep stops after the batch in which ``budget_seconds`` run out, and reports that it is incomplete."""
        for number in range(3):
            adapter.set("namespace", str(number), 1, ttl_seconds=SHORT_TTL_SECONDS)
        wait_for_expiry(adapter, "namespace", *map(str, range(3)))
        report = adapter.sweep_expired(batch_rows=1, budget_seconds=0)
        assert (report.deleted_rows, report.batches, report.complete) == (1, 1, False)
        assert adapter.sweep_expired().deleted_rows == 2

    def test_a_sweep_keeps_the_global_ledger(self, make_adapter: AdapterFactory) -> None:
        """A sweep also subtracts what it frees from the global ledger."""
        adapter = make_adapter(global_quota_bytes=1000)
        adapter.set("one", "a", 1, ttl_seconds=SHORT_TTL_SECONDS)
        adapter.set("two", "a", 123, ttl_seconds=SHORT_TTL_SECONDS)
        adapter.set("two", "b", 12)
        wait_for_expiry(adapter, "one", "a")
        wait_for_expiry(adapter, "two", "a")
        adapter.sweep_expired()
        usage = global_ledger(adapter)
        assert (usage.used_bytes, usage.entry_count, usage.quota_bytes) == (2, 1, 1000)

    def test_records_are_pruned_after_their_retention(self, make_adapter: AdapterFactory) -> None:
        """A record is deleted after the retention, in seconds, of the adapter that wrote it, and frees its id."""
        adapter = make_adapter(operation_retention_seconds=SHORT_TTL_SECONDS)
        for number in range(3):
            adapter.set("namespace", "key", number, operation_id=str(number))
        make_adapter().set("namespace", "key", 3, operation_id="kept")
        reports: list[PruneReport] = []

        def pruned() -> bool:
            reports.append(adapter.prune_operations(batch_rows=2))
            return sum(report.deleted_rows for report in reports) >= 3

        eventually(pruned)
        assert sum(report.deleted_rows for report in reports) == 3
        assert all(report.complete for report in reports)
        assert not adapter.was_applied("namespace", "0")
        assert adapter.was_applied("namespace", "kept")
        assert not adapter.set("namespace", "key", 0, operation_id="0").replayed

    def test_a_prune_removes_only_expired_records(self, make_adapter: AdapterFactory) -> None:
        """A prune keeps the live records of every namespace, wherever the store places them among expired ones."""
        expired, live = [f"expired {number}" for number in range(20)], [f"live {number}" for number in range(20)]
        short_lived, adapter = make_adapter(operation_retention_seconds=SHORT_TTL_SECONDS), make_adapter()
        for namespaces in zip(expired, live, strict=True):
            short_lived.set(namespaces[0], "key", 1, operation_id="once")
            adapter.set(namespaces[1], "key", 1, operation_id="once")
        reports: list[PruneReport] = []

        def pruned() -> bool:
            reports.append(adapter.prune_operations(batch_rows=3))
            return sum(report.deleted_rows for report in reports) >= 20

        # A store may keep a record for somewhat longer than its retention.
        eventually(pruned)
        assert sum(report.deleted_rows for report in reports) == 20
        assert not any(adapter.was_applied(namespace, "once") for namespace in expired)
        assert all(adapter.set(namespace, "key", 1, operation_id="once").replayed for namespace in live)

    def test_a_prune_keeps_to_its_budget(self, make_adapter: AdapterFactory) -> None:
        """A prune stops after the batch in which ``budget_seconds`` run out, and reports that it is incomplete."""
        adapter = make_adapter(operation_retention_seconds=0.001)
        for number in range(3):
            adapter.set("namespace", "key", number)
        eventually(lambda: not adapter.prune_operations(batch_rows=1, budget_seconds=0).complete)

    @pytest.mark.parametrize("batch_rows", [0, -1, 10**18, 1.5, "200", None, True])
    def test_bad_batch_sizes_are_refused(self, adapter: KeyValueStoreAdapter, batch_rows: Any) -> None:
        """``sweep_expired`` and ``prune_operations`` raise ``InvalidRequestError`` for a malformed ``batch_rows``."""
        with pytest.raises(InvalidRequestError):
            adapter.sweep_expired(batch_rows=batch_rows)
        with pytest.raises(InvalidRequestError):
            adapter.prune_operations(batch_rows=batch_rows)

    def test_a_recompute_of_correct_ledgers_changes_nothing(self, make_adapter: AdapterFactory) -> None:
        """After ordinary writes, a recompute finds no drift in any namespace or in the whole store."""
        adapter = make_adapter(global_quota_bytes=1000)
        for namespace in ("one", "two"):
            adapter.set(namespace, "a", 123)
            adapter.set(namespace, "b", "12")
            adapter.delete(namespace, "b")
        adapter.set("three", "a", 1)
        adapter.delete("three", "a")
        report = adapter.recompute_ledgers()
        assert report.drifts == ()
        assert report.complete
        used = {usage.namespace: usage.used_bytes for usage in adapter.usage() if usage.used_bytes}
        assert used == {"one": 3, "two": 3, None: 6}

    def test_a_recompute_continues_where_it_stopped(self, adapter: KeyValueStoreAdapter) -> None:
        """A recompute visits namespaces in order, and ``next_after`` tells where to continue, or is None at the end."""
        for namespace in ("b", "a", "c", "\u00e9"):
            adapter.set(namespace, "key", 1)
        after: str | None = None
        seen: list[str | None] = []
        for _ in range(4):
            report = adapter.recompute_ledgers(after=after, budget_seconds=0)
            assert report.checked_namespaces == 1
            seen.append(report.next_after)
            after = report.next_after
        assert seen == ["a", "b", "c", None]

    def test_a_recompute_of_nothing_is_complete(self, adapter: KeyValueStoreAdapter) -> None:
        """A recompute of an empty store checks no namespace and is complete."""
        assert adapter.recompute_ledgers() == RecomputeReport(checked_namespaces=0)

    def test_usage_lists_namespaces_in_order_and_the_whole_store_last(self, make_adapter: AdapterFactory) -> None:
        """With a global quota, the last item is the store's ledger; an unknown namespace has an empty one."""
        adapter = make_adapter(namespace_quota_bytes=500, global_quota_bytes=1000)
        adapter.set("b", "key", 12)
        adapter.set("a", "key", 1)
        assert adapter.usage() == [
            LedgerUsage("a", 1, 1, 500),
            LedgerUsage("b", 2, 1, 500),
            LedgerUsage(None, 3, 2, 1000),
        ]
        assert adapter.usage("b") == [LedgerUsage("b", 2, 1, 500)]
        assert adapter.usage("unknown") == [LedgerUsage("unknown", 0, 0, 500)]

    def test_without_a_global_quota_there_is_no_global_usage(self, make_adapter: AdapterFactory) -> None:
        """An adapter without a global quota leaves the store's ledger out, even if another adapter has one."""
        make_adapter(global_quota_bytes=1000).set("a", "key", 1)
        assert [usage.namespace for usage in make_adapter().usage()] == ["a"]

    def test_the_clock_of_the_store_advances(self, adapter: KeyValueStoreAdapter) -> None:
        """``clock`` returns the store's time in seconds, which advances, or None if the store has no clock."""
        first = adapter.clock()
        if first is not None:
            eventually(lambda: (adapter.clock() or 0) > first)
