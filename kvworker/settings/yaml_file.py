"""Reads YAML files, strictly where YAML itself would silently read something else."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

import yaml

from kvworker.errors import ConfigurationError

_KEY = "the key"
_QUOTED = re.compile(r"'[^'<]{2,}'")
# The parser's message for a list or mapping that is not closed.
_EXPECTED = re.compile(r"expected ',' or '[\]}]', but got '<[a-z ]+>'")
_MERGE_TAG = "tag:yaml.org,2002:merge"
_STRING_TAG = "tag:yaml.org,2002:str"
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# Only YAML 1.1 reads these as numbers, in base 60 and in base 8: 1:30 as 90, 060 as 48.
_OLD_NUMBER = re.compile(r"[-+]?([0-9_]+:[0-9_:.]+|0[0-9_]+)")
# Spaces that YAML does not take as indentation, and characters that cannot be seen.
_INVISIBLE = ("Zs", "Cf", "Cc")


class _StrictLoader(yaml.SafeLoader):
    """Refuses equal keys and invisible characters around keys, and leaves YAML 1.1's odd numbers as strings."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        """Choose the tag of a node. A number in base 60 or 8 becomes a string."""
        tag: str = super().resolve(kind, value, implicit)  # type: ignore[no-untyped-call]
        return _STRING_TAG if tag in _NUMBER_TAGS and is_old_number(value) else tag

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, or raise at the second of two equal keys, or at one that only looks indented."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE_TAG:
                continue
            _check_visible(key)
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{_KEY} {key.value!r} is given twice; remove one", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))
        return node


def is_old_number(text: str) -> bool:
    """Return whether YAML 1.1 would read unquoted text as a number in base 60 or base 8."""
    return _OLD_NUMBER.fullmatch(text) is not None


def read_file(path: Path, named_by: str) -> dict[Any, Any]:
    """Return the top-level mapping of a YAML file. An empty file gives an empty mapping.

    Args:
        path: The file.
        named_by: The setting or option that named the file, for the error message.

    Raises:
        ConfigurationError: The file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        text = path.expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigurationError(f"{named_by}: cannot read {str(path)!r}: {reason}") from None
    data = _parsed(path, text)
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigurationError(f"{path}: the top level should be a mapping (key: value), not a {type(data).__name__}")
    return data


def _check_visible(key: yaml.ScalarNode) -> None:
    if key.style is not None:  # it is in quotes
        return
    for character in (key.value[:1], key.value[-1:]):
        if character and unicodedata.category(character) in _INVISIBLE:
            name = unicodedata.name(character, "control character").lower()
            raise yaml.MarkedYAMLError(
                problem=f"{_KEY} has a {name} (U+{ord(character):04X}) beside it; use plain spaces",
                problem_mark=key.start_mark,
            )


def _parsed(path: Path, text: bytes) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as error:
        reason = _where(error)
    except ValueError:
        reason = "a date or a number in it is impossible; put it in quotes"
    except RecursionError:
        reason = "it is nested too deeply"
    raise ConfigurationError(f"{path}: not valid YAML: {reason}") from None


def _where(error: yaml.YAMLError) -> str:
    """Return position and reason. The error's own text quotes the line, which may contain a password."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = error.problem or error.context or "cannot be parsed"
        # To YAML, an unquoted password that starts with * or ! is an alias or a tag, and the message quotes it.
        is_safe = problem.startswith(_KEY) or _EXPECTED.fullmatch(problem)
        return place + (problem if is_safe else _QUOTED.sub("(not shown; put it in quotes)", problem))
    return "it holds bytes or control characters that are not UTF-8 text"
