"""Prints data: JSON for programs, and tables for people. Names and values cannot disturb the terminal."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvworker.model import LedgerUsage, escaped_json, escaped_lines
from kvworker.ops.overview.units import fullness_text

_WIDTH_WITHOUT_TERMINAL = 200


def console() -> Console:
    """Make a console on standard output. Without a terminal it is wide enough to keep a row on one line."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)


def error_console() -> Console:
    """Make a console on standard error, for progress bars."""
    return Console(stderr=True, highlight=False)


def print_json(data: Any) -> None:
    """Print a JSON document on one line, as ``json_text`` formats it."""
    click.echo(json_text(data))


def print_error(text: str) -> None:
    """Print text on standard error. Names in it that come from elsewhere cannot disturb the terminal."""
    click.echo(escaped_lines(text), err=True)


def make_table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """Make an empty table. The columns in ``numbers`` are aligned to the right."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def usage_table(usages: Iterable[LedgerUsage]) -> Table:
    """Make a table that compares each ledger with its limits."""
    numbers = ("entries", "records", "used bytes", "quota bytes", "full")
    table = make_table("namespace", *numbers, numbers=numbers)
    for usage in usages:
        table.add_row(shown_name(usage.namespace), *_usage_cells(usage))
    return table


def _usage_cells(usage: LedgerUsage) -> list[str]:
    quota = "none" if usage.quota_bytes is None else f"{usage.quota_bytes:,}"
    entries = _count_cell(usage.entry_count, usage.entry_limit)
    records = _count_cell(usage.record_count, usage.record_limit)
    return [entries, records, f"{usage.used_bytes:,}", quota, fullness_text(usage)]


def _count_cell(count: int, limit: int | None) -> str:
    return f"{count:,}" if limit is None else f"{count:,} of {limit:,}"


def shown_name(name: str | None) -> Text:
    """Format a name for a table. None stands for the whole store. Control characters are escaped, markup is inert."""
    if name is None:
        return Text("(all)", style="italic")
    return Text(name if _is_harmless(name) else ascii(name))


def json_text(value: Any) -> str:
    """Format a value as JSON on one line. Characters that could disturb a terminal or that it lacks are escaped."""
    return escaped_json(json.dumps(value, ensure_ascii=not _is_unicode()))


def shell_word(text: str) -> str:
    """Quote text so that you can paste it into a shell (bash, zsh or ksh if it holds control characters)."""
    if _is_harmless(text):
        return shlex.quote(text)
    return "$'" + "".join(f"\\x{byte:02x}" for byte in text.encode()) + "'"


def seconds_text(seconds: float) -> str:
    """Format a duration, rounded to milliseconds."""
    return f"{round(seconds, 3):.15g} s"


def _is_harmless(text: str) -> bool:
    return text.isprintable() and (text.isascii() or _is_unicode())


def _is_unicode() -> bool:
    return (sys.stdout.encoding or "").lower().startswith("utf")
