"""kvworker: a namespaced key-value store for AI-agent tools, run through a task queue.

The public names, loaded on first use: the facade needs no database driver, the worker no facade.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kvworker.__version__ import __version__

if TYPE_CHECKING:
    from kvworker.adapters import (
        KeyValueStoreAdapter,
        available_kv_store_adapters,
        create_kv_store_adapter,
        register_kv_store_adapter,
        use_conversation_engine,
    )
    from kvworker.client.aio import AsyncKeyValueStore
    from kvworker.client.pipeline import AsyncPipeline, Pipeline, PipelinedResult
    from kvworker.client.sync import KeyValueStore
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
        UnsupportedMessageError,
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
    "UnsupportedMessageError",
    "ValueSerializationError",
    "VersionConflictError",
    "__version__",
    "available_kv_store_adapters",
    "create_kv_store_adapter",
    "register_kv_store_adapter",
    "use_conversation_engine",
]

# What a library logs is the program's to show; without this Python would print it where no logging is set up.
logging.getLogger(__name__).addHandler(logging.NullHandler())

#: The module of each public name.
_HOMES = {
    "AsyncKeyValueStore": "kvworker.client.aio",
    "AsyncPipeline": "kvworker.client.pipeline",
    "BatchRefusedError": "kvworker.errors",
    "BatchResult": "kvworker.model",
    "ClearResult": "kvworker.model",
    "ConfigurationError": "kvworker.errors",
    "CounterOverflowError": "kvworker.errors",
    "DeleteResult": "kvworker.model",
    "GetResult": "kvworker.model",
    "GlobalQuotaExceededError": "kvworker.errors",
    "IdempotencyConflictError": "kvworker.errors",
    "IncrementResult": "kvworker.model",
    "InlineKeyValueStore": "kvworker.inline",
    "InvalidKeyError": "kvworker.errors",
    "InvalidRequestError": "kvworker.errors",
    "InvalidTTLError": "kvworker.errors",
    "InvalidValueTypeError": "kvworker.errors",
    "KVStoreError": "kvworker.errors",
    "KeyList": "kvworker.model",
    "KeyValueStore": "kvworker.client.sync",
    "KeyValueStoreAdapter": "kvworker.adapters",
    "LedgerUsage": "kvworker.model",
    "ListedEntry": "kvworker.model",
    "NamespaceList": "kvworker.model",
    "NamespaceQuotaExceededError": "kvworker.errors",
    "NestedCallError": "kvworker.errors",
    "OperationExpiredError": "kvworker.errors",
    "OperationFailedError": "kvworker.errors",
    "OperationNotSentError": "kvworker.errors",
    "OperationTimeoutError": "kvworker.errors",
    "Pipeline": "kvworker.client.pipeline",
    "PipelineError": "kvworker.errors",
    "PipelinedResult": "kvworker.client.pipeline",
    "PolicyDeniedError": "kvworker.errors",
    "QueueUnavailableError": "kvworker.errors",
    "QuotaExceededError": "kvworker.errors",
    "QuotaResult": "kvworker.model",
    "ReadTooLargeError": "kvworker.errors",
    "RedeliveryLimitError": "kvworker.errors",
    "SchemaError": "kvworker.errors",
    "SetResult": "kvworker.model",
    "Settings": "kvworker.settings",
    "Step": "kvworker.model",
    "StoreUnavailableError": "kvworker.errors",
    "TouchResult": "kvworker.model",
    "UnsupportedMessageError": "kvworker.errors",
    "ValueSerializationError": "kvworker.errors",
    "VersionConflictError": "kvworker.errors",
    "available_kv_store_adapters": "kvworker.adapters",
    "create_kv_store_adapter": "kvworker.adapters",
    "register_kv_store_adapter": "kvworker.adapters",
    "use_conversation_engine": "kvworker.adapters",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
