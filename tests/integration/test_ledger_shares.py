"""Ledgers of several rows: when a ledger is split, what fits into it, and when its shares are merged."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.postgres.ledger_shares import SHARES, LedgerSplitter
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.write import Limits
from kvworker.errors import GlobalQuotaExceededError, NamespaceQuotaExceededError
from kvworker.model import Step
from kvworker.testing import eventually
from kvworker.testing.support import text_of
from tests.support.database import waits_for_lock
from tests.support.elapsed import finishes_within
from tests.support.processes import wait_until

QUOTA = 100_000


@pytest.fixture
def adapter(postgres_url: str) -> Iterator[KeyValueStoreAdapter]:
    with make_adapter(postgres_url) as adapter:
        yield adapter


def make_adapter(url: str, **config: Any) -> KeyValueStoreAdapter:
    return create_kv_store_adapter("postgres", {"url": url, "namespace_quota_bytes": QUOTA, **config})


@contextmanager
def locked(connection: psycopg.Connection[Any], namespace: str, slot: int = 0) -> Iterator[None]:
    """Hold a row of a ledger like a writer that has not committed."""
    with connection.transaction():
        connection.execute(
            "SELECT 1 FROM kv_ledgers WHERE namespace = %s AND slot = %s FOR NO KEY UPDATE", (namespace, slot)
        )
        yield


def rows(connection: psycopg.Connection[Any], namespace: str) -> int:
    row = connection.execute("SELECT count(*) FROM kv_ledgers WHERE namespace = %s", (namespace,)).fetchone()
    return int(row[0]) if row else 0


def split(connection: psycopg.Connection[Any], adapter: KeyValueStoreAdapter, ledger: str = "n") -> None:
    """Make two writes meet at the ledger's only row."""
    adapter.set("n", "first", 1)
    with ThreadPoolExecutor(1) as thread:
        with locked(connection, ledger):
            waiting = thread.submit(adapter.set, "n", "second", 2)
            wait_until(lambda: waits_for_lock(connection), what="the second writer's wait")
        waiting.result(timeout=60)
    assert rows(connection, ledger) == SHARES + 1


@pytest.mark.parametrize("ledger", ["n", ""])
def test_writers_that_met_do_not_wait_for_each_other_again(
    connection: psycopg.Connection[Any], postgres_url: str, ledger: str
) -> None:
    with make_adapter(postgres_url, global_quota_bytes=QUOTA) as adapter:
        split(connection, adapter, ledger)
        with locked(connection, ledger), locked(connection, ledger, 1):
            adapter.set("n", "third", 3)
            adapter.delete("n", "first")
        assert [usage.used_bytes for usage in adapter.usage()] == [2, 2]
        assert adapter.recompute_ledgers().drifts == ()


def test_writers_that_do_not_meet_keep_one_row(
    connection: psycopg.Connection[Any], adapter: KeyValueStoreAdapter
) -> None:
    for number in range(20):
        adapter.set("n", str(number), "x" * number)
    assert rows(connection, "n") == 1


def test_a_split_ledger_admits_exactly_what_fits(
    connection: psycopg.Connection[Any], adapter: KeyValueStoreAdapter
) -> None:
    split(connection, adapter)
    # More than any single row has left.
    adapter.set("n", "large", text_of(QUOTA - 2 - 9))
    with pytest.raises(NamespaceQuotaExceededError) as refused:
        adapter.set("n", "more", text_of(10))
    assert (refused.value.quota_bytes, refused.value.used_bytes, refused.value.requested_bytes) == (
        QUOTA,
        QUOTA - 9,
        10,
    )
    adapter.set("n", "rest", text_of(9))
    assert adapter.usage("n")[0].used_bytes == QUOTA


@pytest.mark.parametrize("atomic", [True, False])
def test_a_batch_stores_exactly_what_fits(
    connection: psycopg.Connection[Any], adapter: KeyValueStoreAdapter, *, atomic: bool
) -> None:
    split(connection, adapter)
    half = text_of((QUOTA - 2) // 2)
    result = adapter.batch("n", [Step("set", key, value=half) for key in "ab"], atomic=atomic)
    assert len(result.results) == 2
    assert adapter.usage("n")[0].used_bytes == QUOTA
    with pytest.raises(NamespaceQuotaExceededError):
        adapter.set("n", "c", 1)


def test_a_split_global_ledger_admits_exactly_what_fits(connection: psycopg.Connection[Any], postgres_url: str) -> None:
    with make_adapter(postgres_url, global_quota_bytes=QUOTA) as adapter:
        split(connection, adapter, "")
        adapter.set("other", "large", text_of(QUOTA - 2))
        with pytest.raises(GlobalQuotaExceededError):
            adapter.increment("n", "counter")
        assert adapter.total_usage().used_bytes == QUOTA


def test_a_lower_quota_holds_at_once_for_shares_of_a_higher_one(
    connection: psycopg.Connection[Any], adapter: KeyValueStoreAdapter, postgres_url: str
) -> None:
    split(connection, adapter)
    with make_adapter(postgres_url, namespace_quota_bytes=10) as frugal:
        frugal.set("n", "small", text_of(8))
        with pytest.raises(NamespaceQuotaExceededError):
            frugal.set("n", "more", 1)
    adapter.set("n", "more", 1)


def test_an_own_quota_holds_at_once_for_a_split_ledger(
    connection: psycopg.Connection[Any], adapter: KeyValueStoreAdapter
) -> None:
    split(connection, adapter)
    adapter.set_quota("n", 10)
    assert rows(connection, "n") == 1
    with locked(connection, "elsewhere"), pytest.raises(NamespaceQuotaExceededError):
        adapter.set("n", "more", text_of(9))
    adapter.set("n", "fits", text_of(8))
    adapter.set_quota("n", None)
    adapter.set("n", "more", text_of(9))


def test_a_recompute_merges_shares_and_an_empty_namespace_keeps_no_ledger(
    connection: psycopg.Connection[Any], adapter: KeyValueStoreAdapter
) -> None:
    split(connection, adapter)
    assert adapter.recompute_ledgers().drifts == ()
    assert rows(connection, "n") == 1
    adapter.clear("n")
    adapter.recompute_ledgers()
    assert rows(connection, "n") == 1  # its operation records are still there
    connection.execute("UPDATE kv_records SET stamp = 0")
    adapter.prune_operations()
    assert adapter.recompute_ledgers().drifts == ()
    assert rows(connection, "n") == 0


def test_a_sweep_credits_bytes_to_a_split_ledger(
    connection: psycopg.Connection[Any], adapter: KeyValueStoreAdapter
) -> None:
    split(connection, adapter)
    with locked(connection, "n"):
        adapter.set("n", "brief", text_of(500), ttl_seconds=0.01)
    eventually(lambda: adapter.sweep_expired().deleted_rows == 1)
    assert adapter.usage("n")[0].used_bytes == 2
    adapter.set("n", "all", text_of(QUOTA - 2))


def test_a_worker_without_the_global_quota_still_charges_the_global_ledger(
    adapter: KeyValueStoreAdapter, postgres_url: str
) -> None:
    adapter.set("n", "before", text_of(100))
    with make_adapter(postgres_url, global_quota_bytes=1000) as accountant:
        accountant.set("n", "its own", text_of(100))
        adapter.set("n", "unaware", text_of(100))
        adapter.delete("n", "before")
        adapter.increment("n", "counter", initial_value=10)
        assert accountant.usage()[-1].used_bytes == 202
        with pytest.raises(GlobalQuotaExceededError):
            accountant.set("n", "more", text_of(799))
        accountant.set("n", "more", text_of(798))
        assert accountant.recompute_ledgers().drifts == ()


def test_the_reply_to_a_write_does_not_wait_until_its_ledger_can_be_split(
    connection: psycopg.Connection[Any], postgres_url: str
) -> None:
    with make_adapter(postgres_url) as adapter:
        assert isinstance(adapter, SqlAdapter)
        adapter.set("n", "key", 1)

        def split_now(lent: Any) -> None:
            LedgerSplitter(adapter._dialect).split(lent, "n", Limits(QUOTA, None, 60.0))

        with locked(connection, "n"), finishes_within(2.0):
            adapter._executor.run(split_now)
        assert rows(connection, "n") == 1
        adapter._executor.run(split_now)
        assert rows(connection, "n") == 1 + SHARES
