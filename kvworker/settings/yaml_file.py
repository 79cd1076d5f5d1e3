"""Reads YAML files, and tells misspelled keys of ours from the keys of a host program."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from kvworker.errors import ConfigurationError

_KEY = "the key"
_QUOTED = re.compile(r"'[^'<]{2,}'")
# The parser's message for a list or mapping that is not closed.
_EXPECTED = re.compile(r"expected ',' or '[\]}]', but got '<[a-z ]+>'")
_MERGE_TAG = "tag:yaml.org,2002:merge"


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses equal keys in a mapping. PyYAML would silently use the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping, or raise at the second of two equal keys."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE_TAG:
                continue
            if (key.tag, key.value) in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{_KEY} {key.value!r} is given twice; remove one", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))
        return node


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


def _parsed(path: Path, text: bytes) -> Any:
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as error:
        reason = _where(error)
    except ValueError:
        reason = "a date or a number in it is impossible; put it in quotes"
    except RecursionError:
        reason = "it is nested too deeply"
    raise ConfigurationError(f"{path}: not valid YAML: {reason}") from None


def near_misses(keys: Collection[object], known: Collection[str], path_prefix: str = "") -> Iterator[str]:
    """Yield a line for each key that looks like a misspelling of a known one.

    Other keys belong to a host program, which may share the file.
    """
    for key in keys:
        if not isinstance(key, str) or key in known:
            continue
        folded = key.strip().lower().replace("-", "_")
        for name in difflib.get_close_matches(folded, known, n=1, cutoff=0.7):
            # A much longer or shorter name is another word, such as `conversation`, and not a misspelling.
            if abs(len(name) - len(folded)) <= 2:
                yield f"{path_prefix}{key}: unknown key; did you mean {path_prefix}{name}?"


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
