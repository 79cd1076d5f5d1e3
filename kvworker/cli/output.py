"""How data is printed: JSON for programs, tables for people; names are shown so that they cannot disturb."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_WITHOUT_TERMINAL = 200


def console() -> Console:
    """A console on stdout; without a terminal it is wide enough to keep a row on one line."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)


def error_console() -> Console:
    """A console on stderr, for progress."""
    return Console(stderr=True, highlight=False)


def print_json(data: Any) -> None:
    """Print one JSON document on one line, with escapes where the output's encoding lacks the characters."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo(json.dumps(data, ensure_ascii=not is_unicode))


def make_table(*columns: str, numbers: tuple[str, ...] = ()) -> Table:
    """A table; the columns in ``numbers`` are aligned to the right."""
    table = Table()
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table


def shown_name(name: str | None) -> Text:
    """A namespace for a table; None is the whole store. Control characters are escaped, markup is inert."""
    if name is None:
        return Text("(all)", style="italic")
    return Text(name if name.isprintable() else ascii(name))
