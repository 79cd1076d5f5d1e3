"""The named SQL statements of a dialect, read once from its ``.sql`` files.

A file holds parts that begin with ``-- name: NAME`` (a statement) or ``-- fragment: NAME`` (what several
statements, or fragments, share, taken in where they say ``-- include: NAME``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_PART = re.compile(r"^-- (name|fragment): (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)
#: psycopg parses a statement of more than 4096 characters anew each time, which takes longer than to run it.
_COMMENT_OR_INDENT = re.compile(r"^(--.*\n?|[ ]+)", re.MULTILINE)


@cache
def load_statements(package: str) -> Mapping[str, str]:
    """Read the statements of a dialect's package by name, whole and without comments and indentation."""
    sources = {"name": dict[str, str](), "fragment": dict[str, str]()}
    for file in (files(package) / "sql").iterdir():
        _, *parts = _PART.split(file.read_text(encoding="utf-8"))
        for kind, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            sources[kind][name] = body.strip("\n")

    def whole(body: str) -> str:
        return _INCLUDE.sub(lambda match: whole(sources["fragment"][match[1]]), body)

    return MappingProxyType(
        {name: _COMMENT_OR_INDENT.sub("", whole(body)).strip() for name, body in sources["name"].items()}
    )
