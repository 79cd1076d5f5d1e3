from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kvworker.adapters import create_kv_store_adapter
from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.testing import AdapterFactory


@contextmanager
def adapters_over(name: str, block: dict[str, Any]) -> Iterator[AdapterFactory]:
    made: list[KeyValueStoreAdapter] = []

    def make(**config: Any) -> KeyValueStoreAdapter:
        adapter = create_kv_store_adapter(name, {**block, **config})
        made.append(adapter)
        return adapter

    yield make
    for adapter in made:
        adapter.close()
