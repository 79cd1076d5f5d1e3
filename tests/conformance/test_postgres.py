from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvworker.testing import AdapterConformance, AdapterFactory
from tests.support.adapters import adapters_over


class TestPostgres(AdapterConformance):
    @pytest.fixture
    def make_adapter(self, postgres_url: str) -> Iterator[AdapterFactory]:
        with adapters_over("postgres", {"url": postgres_url}) as factory:
            yield factory
