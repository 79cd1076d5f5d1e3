"""JSON values: their types, and their canonical JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeAlias, TypeVar

from kvworker.errors import ValueSerializationError
from kvworker.model.value_faults import ALLOWED_TYPES, describe_fault

_Item_co = TypeVar("_Item_co", covariant=True)


class JSONArray(Protocol[_Item_co]):
    """A list whose items a type checker may only read, so that ``list[str]`` is a list of JSON values.

    ``list`` itself is invariant, and ``Sequence`` would admit tuples and ``bytes``, which the store refuses. They
    have no ``reverse``.
    """

    def __len__(self) -> int:
        """Return the number of items."""

    def __iter__(self) -> Iterator[_Item_co]:
        """Iterate over the items."""

    def reverse(self) -> None:
        """Reverse the list in place."""


class AnyTypedDict(Protocol):
    """Any ``TypedDict``, which type checkers refuse as a mapping of JSON values. They don't check what it holds."""

    __required_keys__: ClassVar[frozenset[str]]
    __optional_keys__: ClassVar[frozenset[str]]


#: A value to store. Accepts variables of types such as ``dict[str, int]`` and ``list[str]``. At runtime, an array is
#: a ``list`` and an object is a ``dict``: tuples and other mappings are refused, because they would come back changed.
JSONValue: TypeAlias = "bool | int | float | str | JSONArray[JSONValue] | Mapping[str, JSONValue] | AnyTypedDict | None"

#: A value as it comes back from the store: arrays are lists and objects are dicts, so ``isinstance`` narrows it.
DecodedValue: TypeAlias = "bool | int | float | str | list[DecodedValue] | dict[str, DecodedValue] | None"

#: Levels of lists and objects in a value. Python's JSON decoder recurses once per level and fails near 1000.
MAX_VALUE_DEPTH = 256

# json.dumps would build an encoder on each call.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode_value(value: object) -> str:
    """Return the value as canonical JSON text: compact, key order kept, not ASCII-escaped.

    A value passes only if decoding the text gives an equal value. Tuples, non-string keys and the like are
    therefore refused rather than changed silently.

    Raises:
        ValueSerializationError: The value holds NaN, Infinity, a non-JSON type, a cycle or a lone surrogate, or
            nests deeper than 256 levels.
    """
    try:
        text = _ENCODER.encode(value)
        text.encode("utf-8")
        if not isinstance(value, str | int | float | None) and json.loads(text) != value:
            raise _not_json(value, f"JSON would change something in it; use {ALLOWED_TYPES}")
    except UnicodeEncodeError:
        raise ValueSerializationError("a string in the value holds a lone surrogate, which UTF-8 cannot hold") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueSerializationError:
        raise
    except (TypeError, ValueError) as error:
        raise _not_json(value, str(error)) from None
    if text.count("[") + text.count("{") > MAX_VALUE_DEPTH and depth_of(value, MAX_VALUE_DEPTH) > MAX_VALUE_DEPTH:
        raise _too_deep()
    return text


def decode_value(text: str) -> DecodedValue:
    """Return the value that ``encode_value`` encoded as this text."""
    value: DecodedValue = json.loads(text)
    return value


# Without a repr, which would show the value: it may be a secret. Not frozen, which would triple the time to make one.
@dataclass(slots=True, repr=False)
class EncodedValue:
    """A checked value with its canonical JSON text, so that a process encodes it only once. Made by ``of``. Read-only.

    Attributes:
        value: The value itself.
        text: Its encoding by ``encode_value``.
    """

    value: Any
    text: str

    @classmethod
    def of(cls, value: object) -> Self:
        """Check and encode a value. One that is already encoded is returned unchanged.

        Raises:
            ValueSerializationError: See ``encode_value``.
        """
        return value if isinstance(value, cls) else cls(value, encode_value(value))

    def copy(self) -> Self:
        """Return a copy that does not follow later changes to the caller's value."""
        return type(self)(decode_value(self.text), self.text)


def is_canonical(text: str) -> bool:
    """Return whether ``encode_value`` can have made this text."""
    try:
        return encode_value(decode_value(text)) == text
    except (ValueError, RecursionError, ValueSerializationError):
        return False


def depth_of(value: object, limit: int) -> int:
    """Count the levels of lists and objects in a value. Stop counting at ``limit + 1``."""
    deepest, level = 0, [value]
    while deepest <= limit and (containers := [item for item in level if isinstance(item, list | tuple | dict)]):
        level = [
            child
            for container in containers
            for child in (container.values() if isinstance(container, dict) else container)
        ]
        deepest += 1
    return deepest


def _not_json(value: object, otherwise: str) -> ValueSerializationError:
    return ValueSerializationError(f"the value is not JSON: {describe_fault(value) or otherwise}")


def _too_deep() -> ValueSerializationError:
    return ValueSerializationError(f"the value is nested deeper than {MAX_VALUE_DEPTH} levels")
