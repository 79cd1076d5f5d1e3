from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvworker.testing import AdapterConformance, AdapterFactory, LimitConformance
from tests.support.adapters import adapters_over


class TestPostgres(AdapterConformance, LimitConformance):
    @pytest.fixture
    def make_adapter(self, postgres_url: str) -> Iterator[AdapterFactory]:
        with adapters_over("postgres", {"url": postgres_url}) as factory:
            yield factory


class TestPartitionedPostgres(AdapterConformance, LimitConformance):
    """The tables are partitioned by ``HASH (namespace)``: rows of different partitions can have the same ``ctid``."""

    @pytest.fixture
    def make_adapter(self, partitioned_postgres_url: str) -> Iterator[AdapterFactory]:
        with adapters_over("postgres", {"url": partitioned_postgres_url}) as factory:
            yield factory
