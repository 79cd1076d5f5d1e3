"""LangGraph's reads as jobs over the key-value store's listings and batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langgraph.store.base import ListNamespacesOp, SearchOp

from kvworker.errors import ReadTooLargeError
from kvworker.integrations.jobs import Call, Job, all_of, ask, checked, chunked
from kvworker.integrations.langgraph.items import Names, Namespace, StoredItem
from kvworker.integrations.langgraph.matching import literal_prefix, matches_conditions, matches_filter
from kvworker.model import MAX_BATCH_STEPS, MAX_PAGE_ROWS, BatchResult, GetResult, KeyList, NamespaceList

#: Namespaces that a search reads at the same time; what it reads beyond its limit is in vain.
_SEARCH_WIDTH = 8


def read_items(names: Names, namespace: Namespace, keys: Sequence[str]) -> Job[dict[str, StoredItem]]:
    """The items of some keys of a namespace, in one message; in several where they are too large for one."""
    name = names.encode(namespace)
    found: dict[str, StoredItem] = {}
    waiting = list(chunked(keys, MAX_BATCH_STEPS))
    while waiting:
        answers = yield [_get_call(name, chunk) for chunk in waiting]
        asked, waiting = waiting, []
        for chunk, answer in zip(asked, answers, strict=True):
            if isinstance(answer, ReadTooLargeError) and len(chunk) > 1:
                middle = len(chunk) // 2
                waiting += [chunk[:middle], chunk[middle:]]
                continue
            for entry in _entries(checked(answer)):
                if entry.found:
                    found[entry.key] = StoredItem.from_json(namespace, entry.key, entry.value)
    return found


def search_items(names: Names, op: SearchOp) -> Job[list[StoredItem]]:
    """The items of a namespace and of all below it that pass the filter, in order of the names and the keys.

    It reads on only until it has found what the limit and the offset ask for.
    """
    prefix = tuple(op.namespace_prefix)
    if not names.fits(prefix):
        return []
    wanted = op.offset + op.limit
    # The namespace itself is read without waiting for the listing of those below it.
    first: list[Job[Any]] = [_namespace_page(names.below(prefix), None)]
    first += [_matching_items(names, prefix, op, wanted)] if prefix else []
    page, *own = yield from all_of(first)
    found: list[StoredItem] = own[0] if own else []
    while True:
        for group in chunked(_decoded(names, page), _SEARCH_WIDTH):
            if len(found) >= wanted:
                break
            for items in (yield from all_of(_matching_items(names, one, op, wanted) for one in group)):
                found += items
        if len(found) >= wanted or page.next_cursor is None:
            return found[op.offset : wanted]
        page = yield from _namespace_page(names.below(prefix), page.next_cursor)


def list_namespaces(names: Names, op: ListNamespacesOp) -> Job[list[Namespace]]:
    """The namespaces that meet the conditions, cut to the depth, in order."""
    prefix = literal_prefix(op.match_conditions)
    if not names.fits(prefix):
        return []
    found = yield from _all_namespaces(names, names.encode(prefix))
    matching = [one for one in found if matches_conditions(one, op.match_conditions)]
    cut = matching if op.max_depth is None else {one[: op.max_depth] for one in matching}
    return sorted(cut)[op.offset : op.offset + op.limit]


def _matching_items(names: Names, namespace: Namespace, op: SearchOp, wanted: int) -> Job[list[StoredItem]]:
    found: list[StoredItem] = []
    cursor = None
    while len(found) < wanted:
        rows = MAX_PAGE_ROWS if op.filter else min(MAX_PAGE_ROWS, wanted - len(found))
        page: KeyList = yield from ask(_values_call(names.encode(namespace), rows, cursor))
        items = [StoredItem.from_json(namespace, entry.key, entry.value) for entry in page.entries]
        found += [item for item in items if matches_filter(item.value, op.filter)]
        cursor = page.next_cursor
        if cursor is None:
            break
    return found


def _all_namespaces(names: Names, name_prefix: str) -> Job[list[Namespace]]:
    page = yield from _namespace_page(name_prefix, None)
    found = _decoded(names, page)
    while page.next_cursor is not None:
        page = yield from _namespace_page(name_prefix, page.next_cursor)
        found += _decoded(names, page)
    return found


def _namespace_page(name_prefix: str | None, cursor: str | None) -> Job[NamespaceList]:
    if name_prefix is None:
        return NamespaceList(())
    arguments = {"prefix": name_prefix, "limit": MAX_PAGE_ROWS, "cursor": cursor}
    page: NamespaceList = yield from ask(Call("kv_list_namespaces", arguments))
    return page


def _get_call(name: str, keys: Sequence[str]) -> Call:
    if len(keys) == 1:
        return Call("kv_get", {"namespace": name, "key": keys[0]})
    return Call("kv_batch", {"namespace": name, "operations": [{"tool": "kv_get", "key": key} for key in keys]})


def _entries(result: GetResult | BatchResult) -> Iterable[Any]:
    return [result] if isinstance(result, GetResult) else result.results


def _values_call(name: str, rows: int, cursor: str | None) -> Call:
    return Call("kv_list_keys", {"namespace": name, "limit": rows, "cursor": cursor, "include_values": True})


def _decoded(names: Names, page: NamespaceList) -> list[Namespace]:
    return [names.decode(usage.namespace) for usage in page.namespaces if usage.namespace is not None]
