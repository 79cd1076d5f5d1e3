"""A recompute corrects wrong ledgers. Only a change behind the store's back can make a ledger wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text

from kvworker.adapters import create_kv_store_adapter
from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import GlobalQuotaExceededError, NamespaceQuotaExceededError
from kvworker.model import LedgerDrift


@pytest.fixture(params=["postgres", "sqlite"])
def adapter(request: pytest.FixtureRequest) -> Iterator[KeyValueStoreAdapter]:
    url = request.getfixturevalue(f"{request.param}_url")
    config = {"url": url, "migrate_on_start": True, "namespace_quota_bytes": 100, "global_quota_bytes": 150}
    with create_kv_store_adapter(request.param, config) as adapter:
        adapter.set("one", "key", "x" * 8)
        adapter.set("two", "key", 1)
        yield adapter


@pytest.fixture
def engine(request: pytest.FixtureRequest, adapter: KeyValueStoreAdapter) -> Iterator[Engine]:
    kind = request.node.callspec.params["adapter"]
    engine = create_engine(request.getfixturevalue(f"{kind}_url"))
    yield engine
    engine.dispose()


def spoil(engine: Engine, statement: str, **parameters: Any) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement), parameters)


def test_a_wrong_ledger_is_corrected_and_reported(adapter: KeyValueStoreAdapter, engine: Engine) -> None:
    spoil(engine, "UPDATE kv_ledgers SET used_bytes = 99, entry_count = 5 WHERE namespace = 'one'")
    with pytest.raises(NamespaceQuotaExceededError):
        adapter.set("one", "other", "fits in truth")
    report = adapter.recompute_ledgers()
    assert report.drifts == (LedgerDrift("one", 99, 10, 5, 1, 2, 2),)
    assert report.checked_namespaces == 2
    adapter.set("one", "other", "fits in truth")
    assert adapter.recompute_ledgers().drifts == ()


def test_a_wrong_global_ledger_is_corrected_and_reported(adapter: KeyValueStoreAdapter, engine: Engine) -> None:
    spoil(engine, "UPDATE kv_ledgers SET used_bytes = 150, entry_count = 0 WHERE namespace = ''")
    with pytest.raises(GlobalQuotaExceededError):
        adapter.set("one", "other", 1)
    assert adapter.recompute_ledgers().drifts == (LedgerDrift(None, 150, 11, 0, 2),)
    adapter.set("one", "other", 1)


def test_a_lost_ledger_is_created_again(adapter: KeyValueStoreAdapter, engine: Engine) -> None:
    spoil(engine, "DELETE FROM kv_ledgers WHERE namespace = 'one'")
    assert adapter.recompute_ledgers().drifts[0] == LedgerDrift("one", 0, 10, 0, 1, 0, 2)
    assert adapter.usage("one")[0].used_bytes == 10


def test_a_ledger_without_entries_is_removed(adapter: KeyValueStoreAdapter, engine: Engine) -> None:
    spoil(
        engine, "INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes) VALUES ('ghost', 7, 1, 100)"
    )
    assert LedgerDrift("ghost", 7, 0, 1, 0) in adapter.recompute_ledgers().drifts
    assert "ghost" not in {usage.namespace for usage in adapter.usage()}


def test_a_ledger_may_be_corrected_above_its_quota(adapter: KeyValueStoreAdapter, engine: Engine) -> None:
    spoil(
        engine,
        "INSERT INTO kv_entries (namespace, key, value, size_bytes, previous_bytes)"
        " VALUES ('one', 'smuggled', :text, 202, 0)",
        text=f'"{"x" * 200}"',
    )
    drifts = adapter.recompute_ledgers().drifts
    assert drifts == (LedgerDrift("one", 10, 212, 1, 2, 2, 3), LedgerDrift(None, 11, 213, 2, 3))
    with pytest.raises(NamespaceQuotaExceededError):
        adapter.set("one", "other", 1)
    assert adapter.delete("one", "smuggled").deleted
    adapter.set("one", "other", 1)
