"""kvworker: a namespaced key-value store for AI-agent tools, run through a task queue.

The public names, loaded on first use: the facade needs no database driver, the worker no facade.
"""

from __future__ import annotations

import logging
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
    from kvworker.aio import AsyncKeyValueStore, AsyncPipeline
    from kvworker.client import KeyValueStore
    from kvworker.errors import (
        BatchRefusedError,
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
        OperationNotSentError,
        OperationTimeoutError,
        PipelineError,
        PolicyDeniedError,
        QueueUnavailableError,
        QuotaExceededError,
        ReadTooLargeError,
        RedeliveryLimitError,
        SchemaError,
        StoreUnavailableError,
        ValueSerializationError,
        VersionConflictError,
    )
    from kvworker.inline import InlineKeyValueStore
    from kvworker.model import (
        BatchResult,
        ClearResult,
        DeleteResult,
        GetResult,
        IncrementResult,
        KeyList,
        LedgerUsage,
        ListedEntry,
        NamespaceList,
        QuotaResult,
        SetResult,
        Step,
        TouchResult,
    )
    from kvworker.pipeline import Pipeline, PipelinedResult
    from kvworker.settings import Settings

__all__ = [
    "AsyncKeyValueStore",
    "AsyncPipeline",
    "BatchRefusedError",
    "BatchResult",
    "ClearResult",
    "ConfigurationError",
    "CounterOverflowError",
    "DeleteResult",
    "GetResult",
    "GlobalQuotaExceededError",
    "IdempotencyConflictError",
    "IncrementResult",
    "InlineKeyValueStore",
    "InvalidKeyError",
    "InvalidRequestError",
    "InvalidTTLError",
    "InvalidValueTypeError",
    "KVStoreError",
    "KeyList",
    "KeyValueStore",
    "KeyValueStoreAdapter",
    "LedgerUsage",
    "ListedEntry",
    "NamespaceList",
    "NamespaceQuotaExceededError",
    "NestedCallError",
    "OperationExpiredError",
    "OperationFailedError",
    "OperationNotSentError",
    "OperationTimeoutError",
    "Pipeline",
    "PipelineError",
    "PipelinedResult",
    "PolicyDeniedError",
    "QueueUnavailableError",
    "QuotaExceededError",
    "QuotaResult",
    "ReadTooLargeError",
    "RedeliveryLimitError",
    "SchemaError",
    "SetResult",
    "Settings",
    "Step",
    "StoreUnavailableError",
    "TouchResult",
    "ValueSerializationError",
    "VersionConflictError",
    "available_kv_store_adapters",
    "create_kv_store_adapter",
    "register_kv_store_adapter",
    "use_conversation_engine",
]

# What a library logs is the program's to show; without this Python would print it where no logging is set up.
logging.getLogger(__name__).addHandler(logging.NullHandler())

#: Searched in this order: what a caller needs comes before what only a worker needs.
_MODULES = ("errors", "model", "settings", "client", "pipeline", "aio", "adapters", "inline")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            home = import_module(f"kvworker.{module}")
            if hasattr(home, name):
                return getattr(home, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
