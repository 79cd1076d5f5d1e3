"""Which items a search's filter takes, and which namespaces a listing's conditions take."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from langgraph.store.base import MatchCondition

_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_EQUALITIES: Final[Mapping[str, Callable[[Any, Any], bool]]] = {"$eq": operator.eq, "$ne": operator.ne}


def matches_filter(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Whether an item's value passes a search's filter: each of its fields does.

    As in LangGraph's ``InMemoryStore`` a field that is missing counts as None, a dict without operators is matched
    field by field, and ``$gt`` and the like compare as numbers. Where that store fails, at what is not a number,
    two strings are compared as text, and anything else does not match.

    Raises:
        ValueError: there is no such operator.
    """
    return all(_matches(value.get(field), expected) for field, expected in (wanted or {}).items())


def _matches(value: Any, expected: Any) -> bool:
    if isinstance(expected, Mapping):
        if any(key.startswith("$") for key in expected):
            return all(_compares(value, name, other) for name, other in expected.items())
        return isinstance(value, Mapping) and matches_filter(value, expected)
    if isinstance(expected, list | tuple):
        same_length = isinstance(value, list) and len(value) == len(expected)
        return same_length and all(_matches(one, other) for one, other in zip(value, expected, strict=True))
    return bool(value == expected)


def _compares(value: Any, name: str, other: Any) -> bool:
    if name in _EQUALITIES:
        return _EQUALITIES[name](value, other)
    if name not in _ORDERS:
        raise ValueError(f"unsupported operator {name!r}; the operators are {', '.join([*_EQUALITIES, *_ORDERS])}")
    numbers = _number(value), _number(other)
    if None not in numbers:
        return _ORDERS[name](*numbers)
    return isinstance(value, str) and isinstance(other, str) and _ORDERS[name](value, other)


def _number(value: Any) -> float | None:
    # Not turned into a float: Python compares an integer of any size with a float exactly.
    if isinstance(value, int | float):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def matches_conditions(namespace: tuple[str, ...], conditions: tuple[MatchCondition, ...] | None) -> bool:
    """Whether a namespace meets every condition of a listing; ``*`` in a condition's path is any label.

    Raises:
        ValueError: a condition is of another type than prefix and suffix.
    """
    return all(_meets(namespace, condition) for condition in conditions or ())


def _meets(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    if condition.match_type not in ("prefix", "suffix"):
        raise ValueError(f"unsupported match type {condition.match_type!r}; use prefix or suffix")
    labels, path = list(namespace), list(condition.path)
    if condition.match_type == "suffix":
        labels.reverse()
        path.reverse()
    return len(labels) >= len(path) and all(
        expected in ("*", label) for label, expected in zip(labels, path, strict=False)
    )


def literal_prefix(conditions: tuple[MatchCondition, ...] | None) -> tuple[str, ...]:
    """The labels that every namespace of a listing begins with."""
    prefixes = [
        path[: path.index("*")] if "*" in path else path
        for path in (tuple(condition.path) for condition in conditions or () if condition.match_type == "prefix")
    ]
    return max(prefixes, key=len, default=())
