"""A state machine that applies operations to an adapter and to a dict, and compares them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from kvworker.adapters.contract import KeyValueStoreAdapter
from kvworker.errors import (
    BatchRefusedError,
    CounterOverflowError,
    IdempotencyConflictError,
    InvalidValueTypeError,
    NamespaceQuotaExceededError,
    VersionConflictError,
)
from kvworker.model import INT64_MAX, INT64_MIN, JSONValue, Step

QUOTA_BYTES = 300

_names = st.sampled_from(["a", "A", " ", "é", "b/c"]).filter(lambda name: not name.isspace())
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_values: st.SearchStrategy[JSONValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_integers = st.integers(-1000, 1000) | st.sampled_from([INT64_MAX, INT64_MIN])
#: Long enough never to expire within an example.
_ttls = st.none() | st.integers(3600, 10**9) | st.floats(3600, 10**9)


_steps = (
    st.builds(Step, st.sampled_from(["get", "delete"]), _names)
    | st.builds(Step, st.just("set"), _names, value=_values)
    # A few of these fill the quota.
    | st.builds(Step, st.just("set"), _names, value=st.text("x", min_size=100, max_size=160))
    | st.builds(Step, st.just("increment"), _names, delta=_integers, initial_value=_integers)
)

_items = st.lists(_values, min_size=1, max_size=3)
_max_items = st.none() | st.integers(1, 4)


def text_of(value: JSONValue) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def size_of(value: JSONValue) -> int:
    return len(text_of(value).encode())


#: The field of a replay to compare, if it is not the value; and the methods whose values are compared as text.
_ANSWERS = {"delete": "deleted", "append": "length"}
_WITH_VALUES = {"set", "get_and_delete"}


@dataclass(frozen=True)
class Applied:
    """A successful write: how to repeat it, and its result."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    answer: tuple[Any, ...]


class StoreMachine(RuleBasedStateMachine):
    """A store next to a dict; the subclass says which store."""

    numbers: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.adapter = self.make_adapter()
        self.entries: dict[tuple[str, str], JSONValue] = {}
        self.with_ttl: set[tuple[str, str]] = set()
        self.applied: dict[tuple[str, str], Applied] = {}
        self.last_number = 0

    def make_adapter(self) -> KeyValueStoreAdapter:
        raise NotImplementedError

    def teardown(self) -> None:
        self.adapter.close()

    def fresh_id(self) -> str:
        self.last_number += 1
        return f"operation {self.last_number}"

    def used_bytes(self, namespace: str) -> int:
        return sum(size_of(value) for (owner, _), value in self.entries.items() if owner == namespace)

    def fits(self, name: tuple[str, str], value: JSONValue) -> bool:
        growth = size_of(value) - (size_of(self.entries[name]) if name in self.entries else 0)
        return growth <= 0 or self.used_bytes(name[0]) + growth <= QUOTA_BYTES

    def remember(self, name: tuple[str, str], value: JSONValue, *, has_ttl: bool) -> None:
        self.entries[name] = value
        (self.with_ttl.add if has_ttl else self.with_ttl.discard)(name)

    @rule(namespace=_names, key=_names, value=_values, ttl_seconds=_ttls)
    def set(self, namespace: str, key: str, value: JSONValue, ttl_seconds: float | None) -> None:
        name, operation_id = (namespace, key), self.fresh_id()
        options = {"ttl_seconds": ttl_seconds, "operation_id": operation_id}
        if not self.fits(name, value):
            with pytest.raises(NamespaceQuotaExceededError) as caught:
                self.adapter.set(namespace, key, value, ttl_seconds=ttl_seconds, operation_id=operation_id)
            assert caught.value.used_bytes == self.used_bytes(namespace)
            return
        result = self.adapter.set(namespace, key, value, ttl_seconds=ttl_seconds, operation_id=operation_id)
        assert not result.replayed
        self.remember(name, value, has_ttl=ttl_seconds is not None)
        self.applied[namespace, operation_id] = Applied("set", (namespace, key, value), options, (text_of(value),))

    @rule(namespace=_names, key=_names, items=_items, max_items=_max_items)
    def append(self, namespace: str, key: str, items: list[JSONValue], max_items: int | None) -> None:
        name, operation_id = (namespace, key), self.fresh_id()
        options = {"max_items": max_items, "operation_id": operation_id}
        stored = self.entries.get(name, [])
        kept = [*stored, *items] if isinstance(stored, list) else []
        dropped = 0 if max_items is None else max(0, len(kept) - max_items)
        kept = kept[dropped:]
        if not isinstance(stored, list) or not self.fits(name, kept):
            with pytest.raises(NamespaceQuotaExceededError if kept else InvalidValueTypeError):
                self.adapter.append(namespace, key, items, max_items=max_items)
            return
        result = self.adapter.append(namespace, key, items, max_items=max_items, operation_id=operation_id)
        assert (result.length, result.dropped, result.replayed) == (len(kept), dropped, False)
        self.remember(name, kept, has_ttl=name in self.with_ttl and name in self.entries)
        self.applied[namespace, operation_id] = Applied("append", (namespace, key, items), options, (len(kept),))

    @rule(namespace=_names, key=_names)
    def get_and_delete(self, namespace: str, key: str) -> None:
        taken = self.adapter.get_and_delete(namespace, key, operation_id=(operation_id := self.fresh_id()))
        assert taken.found == ((namespace, key) in self.entries)
        text = text_of(self.entries.pop((namespace, key), None))
        assert text_of(taken.value) == text
        options = {"operation_id": operation_id}
        self.applied[namespace, operation_id] = Applied("get_and_delete", (namespace, key), options, (text,))

    @rule(namespace=_names, key=_names)
    def delete(self, namespace: str, key: str) -> None:
        operation_id = self.fresh_id()
        deleted = self.adapter.delete(namespace, key, operation_id=operation_id).deleted
        assert deleted == ((namespace, key) in self.entries)
        self.entries.pop((namespace, key), None)
        options = {"operation_id": operation_id}
        self.applied[namespace, operation_id] = Applied("delete", (namespace, key), options, (deleted,))

    @rule(namespace=_names, key=_names, delta=_integers, initial_value=_integers, ttl_seconds=_ttls)
    def increment(self, namespace: str, key: str, delta: int, initial_value: int, ttl_seconds: float | None) -> None:
        name, operation_id = (namespace, key), self.fresh_id()
        options: dict[str, Any] = {
            "delta": delta,
            "initial_value": initial_value,
            "ttl_seconds": ttl_seconds,
            "operation_id": operation_id,
        }
        expected = self.refusal_of_increment(name, delta, initial_value)
        if expected is not None:
            with pytest.raises(expected):
                self.adapter.increment(namespace, key, **options)
            return
        total = self.sum_of(name, delta, initial_value)
        result = self.adapter.increment(namespace, key, **options)
        assert (result.value, result.replayed) == (total, False)
        self.remember(name, total, has_ttl=ttl_seconds is not None or (name in self.with_ttl and name in self.entries))
        self.applied[namespace, operation_id] = Applied("increment", (namespace, key), options, (total,))

    def sum_of(self, name: tuple[str, str], delta: int, initial_value: int) -> int:
        current = self.entries.get(name, initial_value)
        assert isinstance(current, int)
        return current + delta

    def refusal_of_increment(self, name: tuple[str, str], delta: int, initial_value: int) -> type[Exception] | None:
        current = self.entries.get(name, initial_value)
        if isinstance(current, bool) or not isinstance(current, int):
            return InvalidValueTypeError
        if not (INT64_MIN <= current <= INT64_MAX and INT64_MIN <= current + delta <= INT64_MAX):
            return CounterOverflowError
        return None if self.fits(name, current + delta) else NamespaceQuotaExceededError

    @rule(namespace=_names, key=_names, value=_values, right=st.booleans(), keep_ttl=st.booleans())
    def swap(self, namespace: str, key: str, value: JSONValue, *, right: bool, keep_ttl: bool) -> None:
        name, version = (namespace, key), self.adapter.get(namespace, key).version
        expected = (version or 1) + (not right)
        if version != expected:
            with pytest.raises(VersionConflictError) as caught:
                self.adapter.set(namespace, key, value, expected_version=expected, keep_ttl=keep_ttl)
            assert caught.value.actual_version == version
        elif not self.fits(name, value):
            with pytest.raises(NamespaceQuotaExceededError):
                self.adapter.set(namespace, key, value, expected_version=expected, keep_ttl=keep_ttl)
        else:
            result = self.adapter.set(namespace, key, value, expected_version=expected, keep_ttl=keep_ttl)
            assert (result.version or 0) > expected
            self.remember(name, value, has_ttl=keep_ttl and name in self.with_ttl)

    @rule(namespace=_names, key=_names, value=_values)
    def claim(self, namespace: str, key: str, value: JSONValue) -> None:
        name = (namespace, key)
        error = VersionConflictError if name in self.entries else NamespaceQuotaExceededError
        if name in self.entries or not self.fits(name, value):
            with pytest.raises(error):
                self.adapter.set(namespace, key, value, if_absent=True)
            return
        self.adapter.set(namespace, key, value, if_absent=True)
        self.remember(name, value, has_ttl=False)

    @rule(namespace=_names, key=_names, ttl_seconds=_ttls)
    def change_expiry(self, namespace: str, key: str, ttl_seconds: float | None) -> None:
        name = (namespace, key)
        if ttl_seconds is None:
            found = self.adapter.persist(namespace, key).found
        else:
            found = self.adapter.touch(namespace, key, ttl_seconds).found
        assert found == (name in self.entries)
        if found:
            self.remember(name, self.entries[name], has_ttl=ttl_seconds is not None)

    @rule(namespace=_names)
    def clear(self, namespace: str) -> None:
        mine = [name for name in self.entries if name[0] == namespace]
        cleared = self.adapter.clear(namespace)
        assert cleared.deleted_entries == len(mine)
        assert cleared.freed_bytes == self.used_bytes(namespace)
        for name in mine:
            del self.entries[name]

    @rule(namespace=_names, steps=st.lists(_steps, min_size=1, max_size=8), atomic=st.booleans())
    def batch(self, namespace: str, steps: list[Step], *, atomic: bool) -> None:
        before, with_ttl = dict(self.entries), set(self.with_ttl)
        outcomes = [self.outcome_of(namespace, step, bounded=not atomic) for step in steps]
        refused = next((i for i, outcome in enumerate(outcomes) if isinstance(outcome, type)), None)
        grown = self.used_bytes(namespace) - sum(size_of(v) for (owner, _), v in before.items() if owner == namespace)
        too_much = grown > 0 and self.used_bytes(namespace) > QUOTA_BYTES
        if atomic and (refused is not None or too_much):
            self.entries, self.with_ttl = before, with_ttl
            with pytest.raises(NamespaceQuotaExceededError if refused is None else BatchRefusedError) as caught:
                self.adapter.batch(namespace, steps)
            assert getattr(caught.value, "index", None) == refused
            return
        operation_id = self.fresh_id()
        for replayed in (False, True):
            batch = self.adapter.batch(namespace, steps, atomic=atomic, operation_id=operation_id)
            writes = any(step.action != "get" for step in steps)
            assert batch.replayed == (replayed and writes)
            if replayed:
                # It reads again, after its own writes.
                outcomes = [
                    self.entries.get((namespace, step.key)) if step.action == "get" else outcome
                    for step, outcome in zip(steps, outcomes, strict=True)
                ]
            for outcome, result in zip(outcomes, batch.results, strict=True):
                if isinstance(outcome, type):
                    assert isinstance(result, outcome)
                else:
                    assert text_of(getattr(result, "value", None)) == text_of(outcome)

    def outcome_of(self, namespace: str, step: Step, *, bounded: bool) -> JSONValue | type[Exception]:
        """Apply a step to the dict; return its value, or the error that refuses it."""
        name = (namespace, step.key)
        if step.action == "get":
            return self.entries.get(name)
        if step.action == "delete":
            self.entries.pop(name, None)
            return None
        value = step.value
        if step.action == "increment":
            refusal = self.refusal_of_increment(name, step.delta, step.initial_value)
            if refusal is not None and (bounded or refusal is not NamespaceQuotaExceededError):
                return refusal
            value = self.sum_of(name, step.delta, step.initial_value)
        elif bounded and not self.fits(name, value):
            return NamespaceQuotaExceededError
        keeps = step.action == "increment" and name in self.with_ttl and name in self.entries
        self.remember(name, value, has_ttl=keeps)
        return value

    @rule(namespace=_names, prefix=st.sampled_from(["", "a", "b/", "é"]))
    def list_keys(self, namespace: str, prefix: str) -> None:
        page = self.adapter.list_keys(namespace, prefix=prefix, include_values=True)
        expected = {key: v for (owner, key), v in self.entries.items() if owner == namespace and key.startswith(prefix)}
        assert [entry.key for entry in page.entries] == sorted(expected)
        assert {entry.key: text_of(entry.value) for entry in page.entries} == {
            k: text_of(v) for k, v in expected.items()
        }

    @precondition(lambda self: self.applied)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        applied = self.applied[data.draw(st.sampled_from(sorted(self.applied)))]
        result = getattr(self.adapter, applied.method)(*applied.arguments, **applied.options)
        assert result.replayed
        answer = getattr(result, _ANSWERS.get(applied.method, "value"))
        assert (text_of(answer) if applied.method in _WITH_VALUES else answer,) == applied.answer

    @precondition(lambda self: self.applied)
    @rule(data=st.data())
    def use_an_id_again(self, data: st.DataObject) -> None:
        namespace, operation_id = data.draw(st.sampled_from(sorted(self.applied)))
        with pytest.raises(IdempotencyConflictError):
            self.adapter.set(namespace, "another key", 1, operation_id=operation_id)

    @rule()
    def maintain(self) -> None:
        assert self.adapter.sweep_expired().deleted_rows == 0
        assert self.adapter.prune_operations().deleted_rows == 0
        assert self.adapter.recompute_ledgers().drifts == ()

    @rule(namespace=_names, key=_names)
    def get(self, namespace: str, key: str) -> None:
        result = self.adapter.get(namespace, key)
        assert result.found == ((namespace, key) in self.entries)
        if result.found:
            assert text_of(result.value) == text_of(self.entries[namespace, key])
            assert (result.ttl_seconds is not None) == ((namespace, key) in self.with_ttl)

    @invariant()
    def ledgers_are_right(self) -> None:
        used = {usage.namespace: (usage.used_bytes, usage.entry_count) for usage in self.adapter.usage()}
        for namespace in {owner for owner, _ in self.entries} | set(used):
            assert namespace is not None
            keys = [owner for owner, _ in self.entries if owner == namespace]
            assert used.get(namespace, (0, 0)) == (self.used_bytes(namespace), len(keys))
