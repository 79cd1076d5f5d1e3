"""Decides which items match a search's filter, and which namespaces match a listing's conditions."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

from langgraph.store.base import MatchCondition

from kvworker.errors import InvalidRequestError

_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_EQUALITIES: Final = ("$eq", "$ne")


def check_filter(conditions: Mapping[Any, Any] | None) -> None:
    """Check the names and operators of a search's filter.

    Raises:
        InvalidRequestError: A name is not a string, which no name in JSON is.
        ValueError: An operator is unknown.
    """
    for field, expected in (conditions or {}).items():
        if not isinstance(field, str):
            raise InvalidRequestError(
                f"a filter's names must be strings, as in JSON: write {str(field)!r} instead of {field!r}"
            )
        _check_expected(expected)


def _check_expected(expected: Any) -> None:
    if isinstance(expected, list | tuple):
        for item in expected:
            _check_expected(item)
    elif isinstance(expected, Mapping):
        if not _has_operators(expected):
            check_filter(expected)
            return
        for name in expected:
            if name not in _EQUALITIES and name not in _ORDERS:
                known = ", ".join([*_EQUALITIES, *_ORDERS])
                raise ValueError(f"unsupported operator {name!r}; the operators are {known}")


def matches_filter(value: Mapping[str, Any], conditions: Mapping[str, Any] | None) -> bool:
    """True if an item's value matches a search's filter in each of its fields. ``check_filter`` has checked the filter.

    As in LangGraph's ``InMemoryStore``, a missing field counts as None, a dict without operators is matched field by
    field, and ``$gt`` and the like compare numbers. Unlike there, true and false are not numbers, as in JSON. If an
    operand is not a number, that store raises an error. Here, two strings are compared as text instead, and other
    operands do not match.
    """
    return all(_matches(value.get(field), expected) for field, expected in (conditions or {}).items())


def _matches(value: Any, expected: Any) -> bool:
    if isinstance(expected, Mapping):
        if _has_operators(expected):
            return all(_satisfies(value, name, operand) for name, operand in expected.items())
        return isinstance(value, Mapping) and matches_filter(value, expected)
    if isinstance(expected, list | tuple):
        same_length = isinstance(value, list) and len(value) == len(expected)
        return same_length and all(_matches(*pair) for pair in zip(value, expected, strict=True))
    return _equals(value, expected)


def _has_operators(expected: Mapping[Any, Any]) -> bool:
    return any(isinstance(name, str) and name.startswith("$") for name in expected)


def _satisfies(value: Any, name: str, operand: Any) -> bool:
    if name in _EQUALITIES:
        return _equals(value, operand) == (name == "$eq")
    numbers = _number(value), _number(operand)
    if None not in numbers:
        return _ORDERS[name](*numbers)
    return isinstance(value, str) and isinstance(operand, str) and _ORDERS[name](value, operand)


def _equals(value: Any, expected: Any) -> bool:
    """True if both are the same JSON value. Python alone would say that true equals 1."""
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, list) and isinstance(expected, list | tuple):
        return len(value) == len(expected) and all(map(_equals, value, expected))
    if isinstance(value, Mapping) and isinstance(expected, Mapping):
        return value.keys() == expected.keys() and all(_equals(value[name], expected[name]) for name in value)
    return bool(value == expected)


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    # An integer is not converted: Python compares integers of any size with floats exactly.
    if isinstance(value, int | float):
        return value
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def matches_conditions(namespace: tuple[str, ...], conditions: tuple[MatchCondition, ...] | None) -> bool:
    """True if a namespace meets every condition of a listing. ``*`` in a condition's path stands for any label.

    Raises:
        ValueError: A condition's type is neither prefix nor suffix.
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
    """Return the longest prefix without ``*`` that the conditions require of every namespace."""
    prefixes = [
        path[: path.index("*")] if "*" in path else path
        for path in (tuple(condition.path) for condition in conditions or () if condition.match_type == "prefix")
    ]
    return max(prefixes, key=len, default=())
