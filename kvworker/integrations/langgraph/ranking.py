"""Searches by meaning: reads all items below a namespace, and keeps those that are nearest to the query."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from langgraph.store.base import SearchOp

from kvworker.integrations.langgraph.items import Names, Namespace, StoredItem
from kvworker.integrations.langgraph.reads import namespaces_below, read_page
from kvworker.integrations.langgraph.vectors import Vector, scores
from kvworker.integrations.rounds import Rounds, chunked, in_parallel
from kvworker.model import MAX_PAGE_ROWS

#: Namespaces that are read at the same time.
_WIDTH: Final = 8


def rank_items(names: Names, op: SearchOp, query: Vector) -> Rounds[list[StoredItem]]:
    """Return the page of the items that match the filter, the nearest to the query first.

    As in LangGraph's own stores, items without a vector follow if the page has room, without a score.
    """
    prefix = tuple(op.namespace_prefix)
    if not names.fits(prefix):
        return []
    namespaces = yield from namespaces_below(names, prefix)
    ranked: list[StoredItem] = []
    unranked: list[StoredItem] = []
    for group in chunked(namespaces, _WIDTH):
        for near, rest in (yield from in_parallel(_nearest(names, namespace, op, query) for namespace in group)):
            ranked = _best(ranked + near, op)
            unranked = (unranked + rest)[: op.limit]
    page = ranked[op.offset :]
    return page + unranked[: op.limit - len(page)]


def _nearest(
    names: Names, namespace: Namespace, op: SearchOp, query: Vector
) -> Rounds[tuple[list[StoredItem], list[StoredItem]]]:
    """Return the nearest items of one namespace, and some without a vector. It keeps only a page in memory."""
    ranked: list[StoredItem] = []
    unranked: list[StoredItem] = []
    cursor = None
    while True:
        items, cursor = yield from read_page(names, namespace, op, MAX_PAGE_ROWS, cursor)
        for item, score in zip(items, scores(query, [item.vectors for item in items]), strict=True):
            (unranked if score is None else ranked).append(replace(item, vectors=(), score=score))
        ranked, unranked = _best(ranked, op), unranked[: op.limit]
        if cursor is None:
            return ranked, unranked


def _best(items: list[StoredItem], op: SearchOp) -> list[StoredItem]:
    # The sort is stable: equally near items stay in the order of their namespaces and keys.
    return sorted(items, key=_distance)[: op.offset + op.limit]


def _distance(item: StoredItem) -> float:
    return -(item.score or 0.0)
