"""The reference adapter in examples/ passes the whole suite, registered like any third-party adapter."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getsource

import pytest

from examples import memory_adapter
from examples.memory_adapter import MemoryStore, make_adapter
from kvworker.adapters import register_kv_store_adapter, registry
from kvworker.testing import AdapterConformance, AdapterFactory
from tests.support.adapters import adapters_over


class TestMemory(AdapterConformance):
    @pytest.fixture
    def make_adapter(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[AdapterFactory]:
        store = MemoryStore()
        monkeypatch.setattr(registry, "_factories", dict(registry._factories))
        register_kv_store_adapter("memory", lambda config: make_adapter(config, store))
        with adapters_over("memory", {}) as factory:
            yield factory


def test_it_fits_into_one_reading() -> None:
    """docs/how-to/write-an-adapter.md promises it."""
    source = getsource(memory_adapter)
    assert len(source.splitlines()) <= 250
