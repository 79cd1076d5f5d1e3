"""The operations on an adapter, as workers and the inline facade run them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from kvworker.model import (
    DEFAULT_PAGE_ROWS,
    MAX_PAGE_ROWS,
    BatchResult,
    ClearResult,
    GetResult,
    KeyList,
    LedgerUsage,
    NamespaceList,
    Operation,
    QuotaResult,
    Step,
    StepResult,
    StepStatusResult,
    status_of,
)
from kvworker.tools import STEP_TOOLS, make_step, make_steps

if TYPE_CHECKING:
    from kvworker.adapters.contract import KeyValueStoreAdapter
    from kvworker.messaging.wire import Request
    from kvworker.model import OperationResult

#: Tells whether a caller may see a namespace. None means that it may see all of them.
Visible: TypeAlias = Callable[[str], bool] | None


def execute(adapter: KeyValueStoreAdapter, request: Request, visible: Visible = None) -> OperationResult:
    """Apply a checked request to the store, once for its operation id.

    Args:
        adapter: The store.
        request: The tool, its checked arguments and the operation id.
        visible: Tells whether a list of namespaces may show one to the caller.

    Returns:
        The result of the adapter's method.

    Raises:
        KVStoreError: Whatever the adapter's method raises.
    """
    if request.tool.name == "kv_list_namespaces":
        return _list_namespaces(adapter, request, visible)
    return _METHODS[request.tool.name](adapter, request)


def apply_many(adapter: KeyValueStoreAdapter, requests: Sequence[Request]) -> list[OperationResult | None]:
    """Apply checked requests, each of a single key, in one call of the adapter.

    Args:
        adapter: The store of all the requests.
        requests: The requests, which are applied in any order.

    Returns:
        A result for each request. None means that it was not applied and must be executed individually.
    """
    return list(adapter.apply_many([_operation(request) for request in requests]))


def _operation(request: Request) -> Operation:
    namespace, step = _namespace_and_step(request)
    return Operation(namespace, step, request.operation_id)


def _namespace_and_step(request: Request) -> tuple[str, Step]:
    arguments = dict(request.arguments)
    namespace: str = arguments.pop("namespace")
    return namespace, make_step(request.tool.name, arguments)


def _get(adapter: KeyValueStoreAdapter, request: Request) -> GetResult:
    arguments = request.arguments
    return adapter.get(arguments["namespace"], arguments["key"])


def _step(adapter: KeyValueStoreAdapter, request: Request) -> StepResult:
    namespace, step = _namespace_and_step(request)
    return adapter.apply_step(namespace, step, request.operation_id)


def _step_status(adapter: KeyValueStoreAdapter, request: Request) -> StepStatusResult:
    # The clock first: a lease that is renewed in between must not seem to have run out.
    now = adapter.clock()
    found = _get(adapter, request)
    return status_of(found, time.time() if now is None else now)


def _batch(adapter: KeyValueStoreAdapter, request: Request) -> BatchResult:
    arguments = request.arguments
    return adapter.batch(
        arguments["namespace"],
        make_steps(arguments["operations"]),
        atomic=arguments.get("atomic", True),
        operation_id=request.operation_id,
    )


def _clear(adapter: KeyValueStoreAdapter, request: Request) -> ClearResult:
    return adapter.clear(request.arguments["namespace"], operation_id=request.operation_id)


def _set_quota(adapter: KeyValueStoreAdapter, request: Request) -> QuotaResult:
    arguments = request.arguments
    return adapter.set_quota(arguments["namespace"], arguments.get("quota_bytes"), operation_id=request.operation_id)


def _usage(adapter: KeyValueStoreAdapter, request: Request) -> LedgerUsage:
    namespace = request.arguments.get("namespace")
    return adapter.total_usage() if namespace is None else adapter.usage(namespace)[0]


def _list_keys(adapter: KeyValueStoreAdapter, request: Request) -> KeyList:
    arguments = request.arguments
    return adapter.list_keys(
        arguments["namespace"],
        prefix=arguments.get("prefix", ""),
        limit=arguments.get("limit", DEFAULT_PAGE_ROWS),
        cursor=arguments.get("cursor"),
        include_values=arguments.get("include_values", False),
    )


def _list_namespaces(adapter: KeyValueStoreAdapter, request: Request, visible: Visible) -> NamespaceList:
    """List a page of the namespaces that the caller may see; hidden ones do not appear in its cursor either."""
    arguments = request.arguments
    prefix: str = arguments.get("prefix", "")
    limit: int = arguments.get("limit", DEFAULT_PAGE_ROWS)
    cursor: str | None = arguments.get("cursor")
    if visible is None:
        return adapter.list_namespaces(prefix=prefix, limit=limit, cursor=cursor)
    found: list[LedgerUsage] = []
    while True:
        page = adapter.list_namespaces(prefix=prefix, limit=MAX_PAGE_ROWS, cursor=cursor)
        found += [usage for usage in page.namespaces if visible(str(usage.namespace))]
        if len(found) > limit:
            return NamespaceList(tuple(found[:limit]), found[limit - 1].namespace)
        if page.next_cursor is None:
            return NamespaceList(tuple(found))
        cursor = page.next_cursor


#: The adapter call of each tool. ``kv_list_namespaces`` is missing: it also needs to know what the caller may see.
_METHODS: Final[Mapping[str, Callable[[KeyValueStoreAdapter, Request], OperationResult]]] = {
    **{tool.name: _step for tool in STEP_TOOLS},
    "kv_get": _get,
    "kv_step_status": _step_status,
    "kv_batch": _batch,
    "kv_clear": _clear,
    "kv_set_quota": _set_quota,
    "kv_usage": _usage,
    "kv_list_keys": _list_keys,
}
