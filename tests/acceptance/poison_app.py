"""A worker whose store kills the process that reads the key ``poison``."""

from __future__ import annotations

import os
import signal

from kvworker import InlineKeyValueStore, Settings
from kvworker.model import GetResult
from tasks import application, runtime
from tasks.runtime import KeyValueStoreAdapter

app = application.make_worker_app(Settings.load())


def _poisoned_adapter(*_: object) -> KeyValueStoreAdapter:
    adapter = InlineKeyValueStore().adapter
    read = adapter.get

    def get(namespace: str, key: str) -> GetResult:
        if key == "poison":
            runtime.logger.warning("poison taken")
            os.kill(os.getpid(), signal.SIGKILL)
        return read(namespace, key)

    adapter.get = get  # type: ignore[method-assign]
    return adapter


runtime.create_kv_store_adapter = _poisoned_adapter
