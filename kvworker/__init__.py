"""kvworker: a namespaced key-value store for AI-agent tools, run through a task queue.

The public names, loaded on first use: the facade needs no database driver, the worker no facade.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvworker.adapters import (
        KeyValueStoreAdapter,
        available_kv_store_adapters,
        create_kv_store_adapter,
        register_kv_store_adapter,
        use_conversation_engine,
    )
    from kvworker.aio import AsyncKeyValueStore
    from kvworker.client import KeyValueStore
    from kvworker.errors import (
        ConfigurationError,
        CounterOverflowError,
        GlobalQuotaExceededError,
        IdempotencyConflictError,
        InvalidKeyError,
        InvalidRequestError,
        InvalidTTLError,
        InvalidValueTypeError,
        KVStoreError,
        NamespaceQuotaExceededError,
        NestedCallError,
        OperationExpiredError,
        OperationFailedError,
        OperationTimeoutError,
        QueueUnavailableError,
        QuotaExceededError,
        RedeliveryLimitError,
        SchemaError,
        StoreUnavailableError,
        ValueSerializationError,
    )
    from kvworker.inline import InlineKeyValueStore
    from kvworker.model import DeleteResult, GetResult, IncrementResult, SetResult
    from kvworker.settings import Settings

_HOMES = {
    "kvworker.adapters": (
        "KeyValueStoreAdapter",
        "available_kv_store_adapters",
        "create_kv_store_adapter",
        "register_kv_store_adapter",
        "use_conversation_engine",
    ),
    "kvworker.aio": ("AsyncKeyValueStore",),
    "kvworker.client": ("KeyValueStore",),
    "kvworker.errors": (
        "ConfigurationError",
        "CounterOverflowError",
        "GlobalQuotaExceededError",
        "IdempotencyConflictError",
        "InvalidKeyError",
        "InvalidRequestError",
        "InvalidTTLError",
        "InvalidValueTypeError",
        "KVStoreError",
        "NamespaceQuotaExceededError",
        "NestedCallError",
        "OperationExpiredError",
        "OperationFailedError",
        "OperationTimeoutError",
        "QueueUnavailableError",
        "QuotaExceededError",
        "RedeliveryLimitError",
        "SchemaError",
        "StoreUnavailableError",
        "ValueSerializationError",
    ),
    "kvworker.inline": ("InlineKeyValueStore",),
    "kvworker.model": ("DeleteResult", "GetResult", "IncrementResult", "SetResult"),
    "kvworker.settings": ("Settings",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - the table above is the one list


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
