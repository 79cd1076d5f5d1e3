"""A worker whose store kills the process that reads the key ``poison``."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Mapping
from typing import Any

from kvworker import InlineKeyValueStore, KeyValueStoreAdapter, Settings, register_kv_store_adapter
from kvworker.model import GetResult
from tasks.application import make_worker_app


def _poisoned_adapter(_config: Mapping[str, Any]) -> KeyValueStoreAdapter:
    adapter = InlineKeyValueStore().adapter
    read = adapter.get

    def get(namespace: str, key: str) -> GetResult:
        if key == "poison":
            logging.getLogger(__name__).warning("poison taken")
            os.kill(os.getpid(), signal.SIGKILL)
        return read(namespace, key)

    adapter.get = get  # type: ignore[method-assign]
    return adapter


register_kv_store_adapter("postgres", _poisoned_adapter, replace=True)
app = make_worker_app(Settings.load())
