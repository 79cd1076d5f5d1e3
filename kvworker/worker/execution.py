"""The operations on an adapter: what a worker runs, and what the inline facade runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from kvworker.model import DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS, LedgerUsage, NamespaceList, Operation
from kvworker.tools import make_steps

if TYPE_CHECKING:
    from kvworker.adapters.contract import KeyValueStoreAdapter
    from kvworker.messaging.wire import Request
    from kvworker.model import OperationResult

#: Tells whether a caller may see a namespace; None is that it may see all.
Visible = Callable[[str], bool] | None


def execute(adapter: KeyValueStoreAdapter, request: Request, visible: Visible = None) -> OperationResult:
    """Apply a checked request to the store, once for its operation id.

    Raises:
        KVStoreError: whatever the adapter's method raises.
    """
    arguments = dict(request.arguments)
    match request.tool.method:
        case "usage":
            namespace = arguments.get("namespace")
            return adapter.total_usage() if namespace is None else adapter.usage(namespace)[0]
        case "list_namespaces":
            return _list_namespaces(adapter, visible, **arguments)
        case "batch":
            arguments["steps"] = make_steps(arguments.pop("operations"))
        case "set_quota":
            arguments.setdefault("quota_bytes", None)
    if request.tool.writes:
        arguments["operation_id"] = request.operation_id
    result: OperationResult = getattr(adapter, request.tool.method)(**arguments)
    return result


def apply_many(adapter: KeyValueStoreAdapter, requests: Sequence[Request]) -> list[OperationResult | None]:
    """Apply checked requests that each are of one key in one go; None for each that is to be performed on its own."""
    return list(adapter.apply_many([_operation(request) for request in requests]))


def _operation(request: Request) -> Operation:
    arguments = dict(request.arguments)
    namespace = arguments.pop("namespace")
    (step,) = make_steps([{"tool": request.tool.name, **arguments}])
    return Operation(namespace, step, request.operation_id)


def _list_namespaces(
    adapter: KeyValueStoreAdapter, visible: Visible, *, limit: int = DEFAULT_PAGE_ROWS, **arguments: Any
) -> NamespaceList:
    """A page of those namespaces that the caller may see; the others do not even show in its cursor."""
    if visible is None:
        return adapter.list_namespaces(limit=limit, **arguments)
    found: list[LedgerUsage] = []
    while True:
        page = adapter.list_namespaces(limit=MAX_PAGE_ROWS, **arguments)
        found += [usage for usage in page.namespaces if visible(str(usage.namespace))]
        if len(found) > limit:
            return NamespaceList(tuple(found[:limit]), found[limit - 1].namespace)
        if page.next_cursor is None:
            return NamespaceList(tuple(found))
        arguments["cursor"] = page.next_cursor
