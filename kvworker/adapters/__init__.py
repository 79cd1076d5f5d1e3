"""Storage backends: the contract that every adapter keeps, the registry of adapters by name, and the SQL adapters.

This package imports ``settings``, ``model``, ``errors``, ``fork_safety`` and ``retries``, and never Celery, kombu or
Redis. The SQL adapters in ``sql``, ``postgres`` and ``sqlite`` are imported only when one is made, because the database
libraries are heavy.
"""

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.adapters.conversation import use_conversation_engine
from kvworker.adapters.registry import (
    available_kv_store_adapters,
    create_kv_store_adapter,
    preload_kv_store_adapter,
    register_kv_store_adapter,
)
from kvworker.adapters.step_adapter import StepAdapter

__all__ = [
    "KeyValueStoreAdapter",
    "StepAdapter",
    "available_kv_store_adapters",
    "create_kv_store_adapter",
    "preload_kv_store_adapter",
    "register_kv_store_adapter",
    "use_conversation_engine",
]
