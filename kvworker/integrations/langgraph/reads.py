"""LangGraph's reads, as rounds of the store's gets, batches and listings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph.store.base import ListNamespacesOp, SearchOp

from kvworker.integrations.entries import read_entries
from kvworker.integrations.langgraph.items import Names, Namespace, StoredItem
from kvworker.integrations.langgraph.matching import literal_prefix, matches_conditions, matches_filter
from kvworker.integrations.rounds import Call, Rounds, chunked, in_parallel, make_call
from kvworker.model import MAX_PAGE_ROWS, KeyList, NamespaceList

#: Namespaces that a search reads at the same time. A larger number reads more items beyond the search's limit.
_SEARCH_WIDTH = 8


def read_items(names: Names, namespace: Namespace, keys: Sequence[str]) -> Rounds[dict[str, StoredItem]]:
    """Read the items of some keys of a namespace.

    Returns:
        The items that exist, by key.
    """
    entries = yield from read_entries(names.encode(namespace), keys)
    return {key: StoredItem.from_json(namespace, key, entry.value) for key, entry in entries.items()}


def search_items(names: Names, op: SearchOp) -> Rounds[list[StoredItem]]:
    """Search a namespace and all below it. Stop reading once it has found what offset and limit require.

    Returns:
        The items that match the filter, sorted by their namespaces' names and their keys.
    """
    prefix = tuple(op.namespace_prefix)
    if not names.fits(prefix):
        return []
    # Reads the namespace itself without waiting for the listing of the namespaces below it.
    first: list[Rounds[Any]] = [_namespace_page(names.below(prefix), None)]
    first += [_matching_items(names, prefix, op)] if prefix else []
    page, *own = yield from in_parallel(first)
    found: list[StoredItem] = own[0] if own else []
    wanted = _wanted_items(op)
    while True:
        found += yield from _search_namespaces(names, _decoded(names, page), op, wanted - len(found))
        if len(found) >= wanted or page.next_cursor is None:
            return found[op.offset : wanted]
        page = yield from _namespace_page(names.below(prefix), page.next_cursor)


def read_page(
    names: Names, namespace: Namespace, op: SearchOp, rows: int, cursor: str | None
) -> Rounds[tuple[list[StoredItem], str | None]]:
    """Read a page of a namespace.

    Returns:
        The items of the page that match the search's filter, and the cursor of the next page.
    """
    page: KeyList = yield from make_call(_values_call(names.encode(namespace), rows, cursor))
    items = [StoredItem.from_json(namespace, entry.key, entry.value) for entry in page.entries]
    return [item for item in items if matches_filter(item.value, op.filter)], page.next_cursor


def namespaces_below(names: Names, prefix: Namespace) -> Rounds[list[Namespace]]:
    """Return the namespaces that may hold items of a search: the prefix, and all that exist below it."""
    below = names.below(prefix)
    found = [] if below is None else (yield from _all_namespaces(names, below))
    return [prefix, *found] if prefix else found


def list_namespaces(names: Names, op: ListNamespacesOp) -> Rounds[list[Namespace]]:
    """List the namespaces that meet the conditions, cut to the maximum depth.

    Returns:
        The namespaces of the page that offset and limit describe, sorted and without duplicates.
    """
    prefix = literal_prefix(op.match_conditions)
    if not names.fits(prefix):
        return []
    found = yield from _all_namespaces(names, names.encode(prefix))
    matching = [namespace for namespace in found if matches_conditions(namespace, op.match_conditions)]
    cut = matching if op.max_depth is None else {namespace[: op.max_depth] for namespace in matching}
    return sorted(cut)[op.offset : op.offset + op.limit]


def _wanted_items(op: SearchOp) -> int:
    return op.offset + op.limit


def _search_namespaces(
    names: Names, namespaces: Sequence[Namespace], op: SearchOp, missing: int
) -> Rounds[list[StoredItem]]:
    found: list[StoredItem] = []
    for group in chunked(namespaces, _SEARCH_WIDTH):
        if len(found) >= missing:
            break
        for items in (yield from in_parallel(_matching_items(names, namespace, op) for namespace in group)):
            found += items
    return found


def _matching_items(names: Names, namespace: Namespace, op: SearchOp) -> Rounds[list[StoredItem]]:
    wanted = _wanted_items(op)
    found: list[StoredItem] = []
    cursor = None
    while len(found) < wanted:
        rows = MAX_PAGE_ROWS if op.filter else min(MAX_PAGE_ROWS, wanted - len(found))
        items, cursor = yield from read_page(names, namespace, op, rows, cursor)
        found += items
        if cursor is None:
            break
    return found


def _all_namespaces(names: Names, name_prefix: str) -> Rounds[list[Namespace]]:
    page = yield from _namespace_page(name_prefix, None)
    found = _decoded(names, page)
    while page.next_cursor is not None:
        page = yield from _namespace_page(name_prefix, page.next_cursor)
        found += _decoded(names, page)
    return found


def _namespace_page(name_prefix: str | None, cursor: str | None) -> Rounds[NamespaceList]:
    if name_prefix is None:
        return NamespaceList(())
    arguments = {"prefix": name_prefix, "limit": MAX_PAGE_ROWS, "cursor": cursor}
    page: NamespaceList = yield from make_call(Call("kv_list_namespaces", arguments))
    return page


def _values_call(name: str, rows: int, cursor: str | None) -> Call:
    return Call("kv_list_keys", {"namespace": name, "limit": rows, "cursor": cursor, "include_values": True})


def _decoded(names: Names, page: NamespaceList) -> list[Namespace]:
    return [names.decode(usage.namespace) for usage in page.namespaces if usage.namespace is not None]
