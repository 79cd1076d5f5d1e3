"""The four operations on an adapter: what a worker runs, and what the inline facade runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvworker.adapters.contract import KeyValueStoreAdapter
    from kvworker.model import OperationResult
    from kvworker.wire import Request


def perform(adapter: KeyValueStoreAdapter, request: Request) -> OperationResult:
    """Apply a checked request to the store, once for its operation id.

    Raises:
        KVStoreError: whatever the adapter's method raises.
    """
    arguments = dict(request.arguments)
    namespace, key = arguments.pop("namespace"), arguments.pop("key")
    match request.tool.name:
        case "kv_get":
            return adapter.get(namespace, key)
        case "kv_set":
            return adapter.set(namespace, key, arguments.pop("value"), **arguments, operation_id=request.operation_id)
        case "kv_delete":
            return adapter.delete(namespace, key, operation_id=request.operation_id)
        case "kv_increment":
            return adapter.increment(namespace, key, **arguments, operation_id=request.operation_id)
        case name:
            raise AssertionError(f"no operation {name}")
