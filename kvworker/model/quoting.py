"""Quotes arguments in error messages without printing a stored value, and escapes text for logs and terminals."""

from __future__ import annotations

import json

_MAX_QUOTED_CHARACTERS = 40


def shown_name(name: object) -> str:
    """Quote a name, cut to 40 characters. Show only the type of anything else: it may be a misplaced value."""
    text = repr(name) if isinstance(name, str) else f"a {type(name).__name__}"
    return text if len(text) <= _MAX_QUOTED_CHARACTERS else text[:_MAX_QUOTED_CHARACTERS] + "..."


def shown_argument(value: object) -> str:
    """Quote a number or a bool. Show only the type of anything else."""
    # Python refuses to print an integer of more than 4300 digits.
    if isinstance(value, int) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    return f"{value!r}" if isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def escaped(text: str) -> str:
    r"""Escape everything that could forge a line of a log or control a terminal, so that the text is on one line.

    Line breaks, control characters, bidirectional controls, lone surrogates and all else that is not printable become
    Python's escapes, such as ``\x1b``. A backslash stays as it is, so escaping twice changes nothing.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escaped_lines(text: str) -> str:
    """Escape text of several lines, such as a traceback. The later ones are indented, so none can pose as the first."""
    return "\n  ".join(map(escaped, text.split("\n")))


def escaped_json(text: str) -> str:
    """Escape the same characters of a compact JSON document as JSON does, so that it stays the same document."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
