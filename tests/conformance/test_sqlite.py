from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.testing import AdapterConformance, AdapterFactory, LimitConformance
from tests.support.adapters import adapters_over


class TestSqliteFile(AdapterConformance, LimitConformance):
    @pytest.fixture
    def make_adapter(self, sqlite_url: str) -> Iterator[AdapterFactory]:
        with adapters_over("sqlite", {"url": sqlite_url, "migrate_on_start": True}) as factory:
            yield factory


def test_a_store_in_memory_serves_every_thread_of_its_process() -> None:
    with adapters_over("sqlite", {"url": "sqlite://"}) as make, ThreadPoolExecutor(4) as threads:
        adapter: KeyValueStoreAdapter = make()
        values = list(threads.map(lambda _: adapter.increment("namespace", "key").value, range(40)))
        assert sorted(values) == list(range(1, 41))
