"""The reference adapter in examples/ passes the whole suite, registered like any third-party adapter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
