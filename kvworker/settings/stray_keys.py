"""Finds keys of ours among a host program's keys: misspelled ones, and those that slid out of their block.

Both would do nothing, silently: a file may hold any other keys at its top level, under ``tools`` and under
``adapters``.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import SkipJsonSchema

_NAME_SUFFIX = ".NAME"
# A single word that a host program hardly uses for something else.
_DISTINCTIVE_WORDS = ("personas",)

_Model = type[BaseModel]
# The path and the keys of a block.
_KnownBlock = tuple[str, Collection[str]]


def near_misses(keys: Collection[object], known: Collection[str], path_prefix: str = "") -> Iterator[str]:
    """Yield a line for each key that looks like a misspelling of a known one.

    Other keys belong to a host program, which may share the file.
    """
    for key in keys:
        if not isinstance(key, str) or key in known:
            continue
        folded = _folded(key)
        for name in difflib.get_close_matches(folded, known, n=1, cutoff=0.7):
            # A much longer or shorter name is another word, such as `conversation`, and not a misspelling.
            if abs(len(name) - len(folded)) <= 2:
                yield f"{path_prefix}{key}: unknown key; did you mean {path_prefix}{name}?"


def slid_keys(data: Mapping[Any, Any], model: _Model, path_prefix: str = "") -> Iterator[str]:
    """Yield a line for each key that belongs into one of the model's blocks, but stands beside them.

    A common word, such as ``url``, may be a host program's. It counts only directly after a block that has such a key:
    it is there that a lost indentation leaves it.

    Args:
        data: The mapping.
        model: The model of the mapping, without its host program's keys.
        path_prefix: The path of the mapping, with a dot at the end; empty for the top level.
    """
    above = ""
    for key, value in data.items():
        if key in model.model_fields:
            above = key
        elif homes := _homes_of(key, _blocks(model)) if is_distinctive(key) else ():
            yield f"{path_prefix}{key}: it does nothing here; indent it into {_listed(path_prefix, homes)}"
        elif homes := _homes_below(above, key, value, model):
            yield (
                f"{path_prefix}{key}: it does nothing here; indent it into {_listed(path_prefix, homes)},"
                f" or, if it is another program's, move it away from below {path_prefix}{above}"
            )
        else:
            above = ""


def is_distinctive(key: object) -> bool:
    """Return whether a key of our blocks is hardly a host program's key as well."""
    return isinstance(key, str) and ("_" in _folded(key) or _folded(key) in _DISTINCTIVE_WORDS)


def _folded(key: str) -> str:
    return key.strip().lower().replace("-", "_")


def _blocks(model: _Model, path: str = "") -> Iterator[_KnownBlock]:
    """Yield the path and the keys of each block below a model. ``NAME`` is the name of one block of several."""
    for name, field in model.model_fields.items():
        block, is_named = _block_of(field)
        if block is None:
            continue
        inner = f"{path}{name}{_NAME_SUFFIX if is_named else ''}"
        yield inner, [key for key, item in block.model_fields.items() if _is_for_files(item)]
        yield from _blocks(block, f"{inner}.")


def _homes_of(key: object, blocks: Iterable[_KnownBlock]) -> list[str]:
    """Return the paths of the blocks that have the key."""
    return [path for path, keys in blocks if isinstance(key, str) and _folded(key) in keys]


def _homes_below(above: str, key: object, value: object, model: _Model) -> list[str]:
    """Return the paths in a block that have the key, or else that hold blocks by name like this one."""
    blocks = [(path, keys) for path, keys in _blocks(model) if above and f"{path}.".startswith(f"{above}.")]
    return _homes_of(key, blocks) or [
        path.removesuffix(_NAME_SUFFIX) for path, keys in blocks if path.endswith(_NAME_SUFFIX) and _fits(value, keys)
    ]


def _fits(value: object, keys: Collection[str]) -> bool:
    return isinstance(value, Mapping) and bool(value) and set(value) <= set(keys)


def _block_of(field: FieldInfo) -> tuple[_Model | None, bool]:
    """Return the model of a field that is a block, or that holds blocks by name, and which of the two it is."""
    annotation: Any = field.annotation
    if _is_model(annotation):
        return annotation, False
    arguments = get_args(annotation)
    return (arguments[-1], True) if arguments and _is_model(arguments[-1]) else (None, False)


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _is_for_files(field: FieldInfo) -> bool:
    return not any(isinstance(item, SkipJsonSchema) for item in field.metadata)  # type: ignore[misc]


def _listed(path_prefix: str, blocks: Collection[str]) -> str:
    return " or ".join(f"{path_prefix}{block}" for block in blocks)
