"""Quotes arguments in error messages, without printing a stored value."""

from __future__ import annotations

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
