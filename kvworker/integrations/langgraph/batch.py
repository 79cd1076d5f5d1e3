"""A batch of LangGraph's operations as a job: a round of reads, then one of writes, a message for each namespace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

from langgraph.store.base import GetOp, ListNamespacesOp, Op, PutOp, Result, SearchOp, validate_op_namespace

from kvworker.errors import InvalidRequestError, InvalidTTLError
from kvworker.integrations.jobs import Call, Job, all_of, checked, chunked
from kvworker.integrations.langgraph.items import Names, Namespace, StoredItem
from kvworker.integrations.langgraph.reads import list_namespaces, read_items, search_items
from kvworker.model import MAX_BATCH_STEPS, MAX_TTL_SECONDS, check_key, encode_value

_Found: TypeAlias = dict[Namespace, dict[str, StoredItem]]
#: By the index of their operation: the items of a search, the namespaces of a listing.
_Listed: TypeAlias = dict[int, list[Any]]
_Step: TypeAlias = dict[str, Any]

_SECONDS_PER_MINUTE = 60


class Batch:
    """The operations of one batch. As in LangGraph's own stores all read what was there before, and then it writes.

    Of several puts of one key the last one counts.

    Raises:
        InvalidNamespaceError: a namespace holds a wrong label, or its name is too long.
        InvalidRequestError: a key, a value or a TTL is none that the store takes.
        ValueError: a limit or an offset is below 0, or an operation is of an unknown type.
    """

    def __init__(self, ops: Iterable[Op], names: Names) -> None:
        self._ops = list(ops)
        self._names = names
        # All of them before anything is sent.
        for op in self._ops:
            self._check(op)
        self._puts: dict[Namespace, dict[str, PutOp]] = {}
        for op in self._ops:
            if isinstance(op, PutOp):
                self._puts.setdefault(tuple(op.namespace), {})[op.key] = op

    def run(self) -> Job[list[Result]]:
        """The results, in the order of the operations."""
        keys = self._keys_to_read()
        listings = {index: job for index, op in enumerate(self._ops) if (job := self._listing(op))}
        reads: list[Job[list[Any]]] = [
            all_of(read_items(self._names, namespace, list(wanted)) for namespace, wanted in keys.items()),
            all_of(listings.values()),
        ]
        items, lists = yield from all_of(reads)
        found: _Found = dict(zip(keys, items, strict=True))
        listed: _Listed = dict(zip(listings, lists, strict=True))
        steps = self._steps(found, listed)
        yield from all_of(_write(self._names.encode(one), list(of_key.values())) for one, of_key in steps.items())
        return [self._result(index, op, found, listed) for index, op in enumerate(self._ops)]

    def _check(self, op: Op) -> None:
        if not isinstance(op, GetOp | PutOp | SearchOp | ListNamespacesOp):
            raise ValueError(f"unknown operation: {type(op).__name__}")  # noqa: TRY004 - as LangGraph's stores do
        validate_op_namespace(op)
        if isinstance(op, SearchOp | ListNamespacesOp):
            if op.limit < 0 or op.offset < 0:
                raise ValueError(f"limit and offset must not be below 0: {op.limit}, {op.offset}")
            return
        self._names.encode(op.namespace)
        check_key(op.key)
        if isinstance(op, PutOp) and op.value is not None:
            _check_value(op)
            _check_ttl(op)

    def _keys_to_read(self) -> dict[Namespace, dict[str, None]]:
        # What a put replaces is read for the time of its creation.
        keys: dict[Namespace, dict[str, None]] = {}
        for op in self._ops:
            if isinstance(op, GetOp) or (isinstance(op, PutOp) and op.value is not None):
                keys.setdefault(tuple(op.namespace), {})[op.key] = None
        return keys

    def _listing(self, op: Op) -> Job[Any] | None:
        if isinstance(op, SearchOp):
            return search_items(self._names, op)
        if isinstance(op, ListNamespacesOp):
            return list_namespaces(self._names, op)
        return None

    def _steps(self, found: _Found, listed: _Listed) -> dict[Namespace, dict[str, _Step]]:
        steps: dict[Namespace, dict[str, _Step]] = {}
        for item in self._renewed(found, listed):
            step = {"tool": "kv_touch", "key": item.key, "ttl_seconds": _ttl_seconds(item.ttl_minutes)}
            steps.setdefault(item.namespace, {})[item.key] = step
        for namespace, puts in self._puts.items():
            replaced = found.get(namespace, {})
            of_key = {key: _put_step(op, replaced.get(key)) for key, op in puts.items()}
            steps.setdefault(namespace, {}).update(of_key)
        return steps

    def _renewed(self, found: _Found, listed: _Listed) -> Iterator[StoredItem]:
        for index, op in enumerate(self._ops):
            if isinstance(op, GetOp | SearchOp) and op.refresh_ttl:
                read = listed[index] if isinstance(op, SearchOp) else [_item_of(op, found)]
                yield from (item for item in read if item is not None and item.ttl_minutes is not None)

    @staticmethod
    def _result(index: int, op: Op, found: _Found, listed: _Listed) -> Result:
        if isinstance(op, GetOp):
            item = _item_of(op, found)
            return item.to_item() if item else None
        if isinstance(op, SearchOp):
            return [item.to_search_item() for item in listed[index]]
        return listed.get(index)


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


def _put_step(op: PutOp, replaced: StoredItem | None) -> _Step:
    if op.value is None:
        return {"tool": "kv_delete", "key": op.key}
    stored = StoredItem.put(op, replaced).to_json()
    return {"tool": "kv_set", "key": op.key, "value": stored, "ttl_seconds": _ttl_seconds(op.ttl)}


def _ttl_seconds(minutes: float | None) -> float | None:
    return None if minutes is None else min(minutes * _SECONDS_PER_MINUTE, MAX_TTL_SECONDS)


def _write(name: str, steps: Sequence[_Step]) -> Job[None]:
    answers = yield [_write_call(name, chunk) for chunk in chunked(steps, MAX_BATCH_STEPS)]
    for answer in answers:
        checked(answer)


def _write_call(name: str, steps: Sequence[_Step]) -> Call:
    if len(steps) > 1:
        return Call("kv_batch", {"namespace": name, "operations": steps})
    arguments: Mapping[str, Any] = {name: value for name, value in steps[0].items() if name != "tool"}
    return Call(cast(str, steps[0]["tool"]), {"namespace": name, **arguments})
