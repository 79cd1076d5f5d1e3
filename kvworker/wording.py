"""Words that messages share. Imports nothing from the package."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def noun(count: int, singular: str, plural: str = "") -> str:
    """Return the form of a word that goes with a number. The plural's default is the singular and an s."""
    return singular if count == 1 else plural or singular + "s"


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return a number and its noun, such as "1 entry"."""
    return f"{count} {noun(count, singular, plural)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question that names the known word closest to a mistyped one, or "" if none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else ""
