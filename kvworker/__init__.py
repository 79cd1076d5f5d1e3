"""kvworker: a namespaced key-value store for AI-agent tools, run through a task queue.

This module loads each public name on first use, so that the facade needs no database driver and the worker no facade.
``__init__.pyi`` lists the same names for type checkers; a test compares the two.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

from kvworker.__version__ import __version__

#: The module of each public name.
_MODULES = {
    "AcquirePermitResult": "kvworker.model",
    "AppendResult": "kvworker.model",
    "AsyncKeyValueStore": "kvworker.client.aio",
    "AsyncPipeline": "kvworker.client.pipeline",
    "BatchRefusedError": "kvworker.errors",
    "BatchResult": "kvworker.model",
    "ClearResult": "kvworker.model",
    "ConfigurationError": "kvworker.errors",
    "CounterOverflowError": "kvworker.errors",
    "DeleteResult": "kvworker.model",
    "GetAndDeleteResult": "kvworker.model",
    "EffectUnknownError": "kvworker.errors",
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
    "LeaseHeldError": "kvworker.errors",
    "LeaseLostError": "kvworker.errors",
    "LedgerUsage": "kvworker.model",
    "LimitExceededError": "kvworker.errors",
    "ListedEntry": "kvworker.model",
    "MergeResult": "kvworker.model",
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
    "RateLimitExceededError": "kvworker.errors",
    "RateLimitResult": "kvworker.model",
    "ReadTooLargeError": "kvworker.errors",
    "RecordTooLargeError": "kvworker.errors",
    "RedeliveryLimitError": "kvworker.errors",
    "ReleasePermitResult": "kvworker.model",
    "RenewPermitResult": "kvworker.model",
    "ReplayTooLargeError": "kvworker.errors",
    "SchemaError": "kvworker.errors",
    "SetResult": "kvworker.model",
    "Settings": "kvworker.settings",
    "Step": "kvworker.model",
    "StepBeginResult": "kvworker.model",
    "StepConflictError": "kvworker.errors",
    "StepFailedError": "kvworker.errors",
    "StepFinishResult": "kvworker.model",
    "StepInProgressError": "kvworker.errors",
    "StepLostError": "kvworker.errors",
    "StepRenewResult": "kvworker.model",
    "StepStatusResult": "kvworker.model",
    "StepUnrecordedError": "kvworker.errors",
    "StoreUnavailableError": "kvworker.errors",
    "TouchResult": "kvworker.model",
    "UnknownOutcomeError": "kvworker.errors",
    "UnsupportedMessageError": "kvworker.errors",
    "ValueSerializationError": "kvworker.errors",
    "VersionConflictError": "kvworker.errors",
    "available_kv_store_adapters": "kvworker.adapters",
    "create_kv_store_adapter": "kvworker.adapters",
    "register_kv_store_adapter": "kvworker.adapters",
    "use_conversation_engine": "kvworker.adapters",
}

__all__ = ["__version__"]
__all__ += list(_MODULES)

# A library leaves it to the program to show its log. Without this handler, Python would print warnings to stderr in a
# program that has not configured logging.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
