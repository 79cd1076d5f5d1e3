"""Patterns of names, in which ``*`` stands for any run of characters."""

from __future__ import annotations


def matches(pattern: str, name: str) -> bool:
    """True if a name matches a pattern. ``*`` stands for any run of characters, all else for itself.

    A regular expression with many stars could backtrack practically forever, so this does not use one.
    """
    first, *inner = pattern.split("*")
    if not inner:
        return name == pattern
    last = inner.pop()
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    position, end = len(first), len(name) - len(last)
    for part in inner:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
