"""Runs a batch of LangGraph operations: rounds of reads, then a round of writes, grouped by namespace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from langgraph.store.base import GetOp, InvalidNamespaceError, ListNamespacesOp, Op, PutOp, Result, SearchOp

from kvworker.errors import InvalidRequestError, InvalidTTLError
from kvworker.integrations.entries import step_call
from kvworker.integrations.langgraph.items import Names, Namespace, StoredItem
from kvworker.integrations.langgraph.matching import check_filter
from kvworker.integrations.langgraph.reads import list_namespaces, read_items, search_items
from kvworker.integrations.rounds import Rounds, chunked, in_parallel, result_of
from kvworker.model import MAX_BATCH_STEPS, MAX_TTL_SECONDS, check_key, encode_value

if TYPE_CHECKING:
    from kvworker.integrations.langgraph.vectors import Embedded, Index

_Found: TypeAlias = dict[Namespace, dict[str, StoredItem]]
#: For the index of a search its items, for the index of a listing its namespaces.
_Listed: TypeAlias = dict[int, list[Any]]
_Step: TypeAlias = dict[str, Any]

_SECONDS_PER_MINUTE = 60


class Batch:
    """The operations of one batch.

    As in LangGraph's own stores, all reads see the state before the batch, and the writes follow. If a batch puts one
    key several times, the last put wins.

    Raises:
        InvalidNamespaceError: A namespace holds a wrong label, or its name is too long.
        InvalidRequestError: The store does not accept a key, a value, a TTL or a filter.
        NotImplementedError: A search has a query, and the store has no index.
        ValueError: A limit or an offset is below 0, or an operation or a filter's operator is unknown.
    """

    def __init__(self, ops: Iterable[Op], names: Names, index: Index | None = None) -> None:
        self._ops = list(ops)
        self._names = names
        self._index = index
        self._embedded: Embedded | None = None
        # Check all operations before any call is made.
        for op in self._ops:
            self._check(op)
        self._puts: dict[Namespace, dict[str, PutOp]] = {}
        for op in self._ops:
            if isinstance(op, PutOp):
                self._puts.setdefault(tuple(op.namespace), {})[op.key] = op

    def texts(self) -> list[str]:
        """Return the texts whose vectors the batch stores."""
        texts = (text for puts in self._puts.values() for op in puts.values() for text in self._texts_of(op))
        return list(dict.fromkeys(texts))

    def queries(self) -> list[str]:
        """Return the queries of the batch's searches."""
        return list(dict.fromkeys(op.query for op in self._ops if isinstance(op, SearchOp) and op.query))

    def use(self, embedded: Embedded) -> None:
        """Take the vectors of all texts and queries, which ``run`` needs if the store has an index."""
        self._embedded = embedded

    def run(self) -> Rounds[list[Result]]:
        """Run the operations and return their results in the same order."""
        keys = self._keys_to_read()
        listings = {index: rounds for index, op in enumerate(self._ops) if (rounds := self._listing(op))}
        reads: list[Rounds[list[Any]]] = [
            in_parallel(read_items(self._names, namespace, list(wanted)) for namespace, wanted in keys.items()),
            in_parallel(listings.values()),
        ]
        items, lists = yield from in_parallel(reads)
        found: _Found = dict(zip(keys, items, strict=True))
        listed: _Listed = dict(zip(listings, lists, strict=True))
        steps = self._steps(found, listed)
        yield from in_parallel(
            _write(self._names.encode(namespace), list(by_key.values())) for namespace, by_key in steps.items()
        )
        return [self._result(index, op, found, listed) for index, op in enumerate(self._ops)]

    def _check(self, op: Op) -> None:
        if not isinstance(op, GetOp | PutOp | SearchOp | ListNamespacesOp):
            raise ValueError(f"unknown operation: {type(op).__name__}")  # noqa: TRY004 - as LangGraph's stores do
        _check_labels(op)
        if isinstance(op, SearchOp | ListNamespacesOp):
            if op.limit < 0 or op.offset < 0:
                raise ValueError(f"limit and offset must not be below 0: {op.limit}, {op.offset}")
            if isinstance(op, SearchOp):
                self._check_search(op)
            return
        self._names.encode(op.namespace)
        check_key(op.key)
        if isinstance(op, PutOp) and op.value is not None:
            _check_value(op)
            _check_ttl(op)

    def _keys_to_read(self) -> dict[Namespace, dict[str, None]]:
        # A put also reads the item that it replaces, to keep the time of its creation.
        keys: dict[Namespace, dict[str, None]] = {}
        for op in self._ops:
            if isinstance(op, GetOp) or (isinstance(op, PutOp) and op.value is not None):
                keys.setdefault(tuple(op.namespace), {})[op.key] = None
        return keys

    def _listing(self, op: Op) -> Rounds[Any] | None:
        if isinstance(op, SearchOp):
            return self._search(op)
        if isinstance(op, ListNamespacesOp):
            return list_namespaces(self._names, op)
        return None

    def _steps(self, found: _Found, listed: _Listed) -> dict[Namespace, dict[str, _Step]]:
        steps: dict[Namespace, dict[str, _Step]] = {}
        for item in self._items_to_renew(found, listed):
            step = {"tool": "kv_touch", "key": item.key, "ttl_seconds": _ttl_seconds(item.ttl_minutes)}
            steps.setdefault(item.namespace, {})[item.key] = step
        for namespace, puts in self._puts.items():
            replaced = found.get(namespace, {})
            by_key = {key: self._put_step(op, replaced.get(key)) for key, op in puts.items()}
            steps.setdefault(namespace, {}).update(by_key)
        return steps

    def _items_to_renew(self, found: _Found, listed: _Listed) -> Iterator[StoredItem]:
        for index, op in enumerate(self._ops):
            if isinstance(op, GetOp | SearchOp) and op.refresh_ttl:
                read = listed[index] if isinstance(op, SearchOp) else [_item_of(op, found)]
                yield from (item for item in read if item is not None and item.ttl_minutes is not None)

    def _check_search(self, op: SearchOp) -> None:
        if op.query and self._index is None:
            raise NotImplementedError(
                "this store has no index, so it cannot search by query: pass index={'dims': …, 'embed': …} to it, or"
                " search by namespace and filter"
            )
        check_filter(op.filter)

    def _search(self, op: SearchOp) -> Rounds[list[StoredItem]]:
        if op.query and self._embedded is not None:
            # Only a store with an index needs numpy.
            from kvworker.integrations.langgraph.ranking import rank_items  # noqa: PLC0415

            return rank_items(self._names, op, self._embedded.queries[op.query])
        return search_items(self._names, op)

    def _texts_of(self, op: PutOp) -> list[str]:
        return [] if self._index is None else self._index.texts_of(op)

    def _put_step(self, op: PutOp, replaced: StoredItem | None) -> _Step:
        if op.value is None:
            return {"tool": "kv_delete", "key": op.key}
        vectors = [] if self._embedded is None else self._embedded.of_texts(self._texts_of(op))
        stored = StoredItem.put(op, replaced, vectors).to_json()
        return {"tool": "kv_set", "key": op.key, "value": stored, "ttl_seconds": _ttl_seconds(op.ttl)}

    @staticmethod
    def _result(index: int, op: Op, found: _Found, listed: _Listed) -> Result:
        if isinstance(op, GetOp):
            item = _item_of(op, found)
            return item.to_item() if item else None
        if isinstance(op, SearchOp):
            return [item.to_search_item() for item in listed[index]]
        return listed.get(index)


def _check_labels(op: Op) -> None:
    """Refuse the labels that ``validate_op_namespace`` of langgraph-checkpoint 4.3 refuses; older releases lack it."""
    for namespace in _namespaces(op):
        for label in namespace:
            if not isinstance(label, str) or not label or set(label) & {".", "\x00"}:
                raise InvalidNamespaceError(
                    f"the namespace {tuple(namespace)} has the label {label!r}: a label is a string that is not empty"
                    " and has neither a period ('.') nor a NUL character"
                )


def _namespaces(op: Op) -> list[tuple[str, ...]]:
    if isinstance(op, GetOp | PutOp):
        return [op.namespace]
    if isinstance(op, SearchOp):
        return [op.namespace_prefix]
    return [condition.path for condition in op.match_conditions or ()]


def _check_value(op: PutOp) -> None:
    if not isinstance(op.value, Mapping):
        raise InvalidRequestError(f"the value of item {op.key!r} must be a mapping, not a {type(op.value).__name__}")
    encode_value({"value": dict(op.value)})


def _check_ttl(op: PutOp) -> None:
    ttl: object = op.ttl
    if ttl is None:
        return
    # A bool is a mistake, never one minute.
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl < math.inf:
        raise InvalidTTLError(
            f"the ttl of item {op.key!r} must be a finite number of minutes above 0, or None for no expiry"
        )


def _item_of(op: GetOp, found: _Found) -> StoredItem | None:
    return found[tuple(op.namespace)].get(op.key)


def _ttl_seconds(minutes: float | None) -> float | None:
    return None if minutes is None else min(minutes * _SECONDS_PER_MINUTE, MAX_TTL_SECONDS)


def _write(name: str, steps: Sequence[_Step]) -> Rounds[None]:
    outcomes = yield [step_call(name, chunk) for chunk in chunked(steps, MAX_BATCH_STEPS)]
    for outcome in outcomes:
        result_of(outcome)
