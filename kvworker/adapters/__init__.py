"""Storage backends: the contract, the registry and, imported only when asked for, the SQL adapters."""

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.adapters.conversation import use_conversation_engine
from kvworker.adapters.registry import (
    available_kv_store_adapters,
    create_kv_store_adapter,
    preload_kv_store_adapter,
    register_kv_store_adapter,
)

__all__ = [
    "KeyValueStoreAdapter",
    "available_kv_store_adapters",
    "create_kv_store_adapter",
    "preload_kv_store_adapter",
    "register_kv_store_adapter",
    "use_conversation_engine",
]
