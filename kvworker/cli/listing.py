"""``list``: keys or namespaces, through the queue, a page at a time or all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from kvworker.cli.output import (
    console,
    json_text,
    make_table,
    print_json,
    seconds_text,
    shell_word,
    shown_name,
    usage_table,
)
from kvworker.cli.tool_command import Call, tool_command
from kvworker.model import DEFAULT_PAGE_ROWS, MAX_PAGE_ROWS, NamespaceList

# Of a value in a table. A whole one may have a megabyte.
_SHOWN_CHARACTERS = 200


@click.command("list")
@click.argument("namespace", required=False)
@click.option("--prefix", metavar="TEXT", help="Only names that begin with TEXT.")
@click.option("--limit", type=int, metavar="N", help=f"How many at most [default: {DEFAULT_PAGE_ROWS}].")
@click.option("--cursor", metavar="C", help="Go on where an earlier page ended.")
@click.option("--all", "whole", is_flag=True, help="All of them; --timeout then bounds each page.")
@click.option("--values", "include_values", is_flag=True, help="With the entries' values; a table cuts long ones.")
@tool_command
def list_command(call: Call, *, as_json: bool, whole: bool, **arguments: Any) -> None:
    """List the keys of NAMESPACE or, without one, the namespaces.

    Namespaces come with their usage, as a worker tells it: no access to the database is needed.

    If there is more than was listed, the last line gives the --cursor to go on with; with --json it is "next_cursor",
    which is null at the end. No snapshot is held between pages: what is written meanwhile is listed or not.
    """
    if whole:
        if arguments["limit"] is not None:
            raise click.UsageError("--all and --limit exclude each other")
        arguments["limit"] = MAX_PAGE_ROWS
    if arguments["namespace"] is not None:
        listing = _listed(call, "kv_list_keys", arguments, "entries", whole=whole)
    elif arguments.pop("include_values"):
        raise click.UsageError("--values needs a NAMESPACE")
    else:
        del arguments["namespace"]
        listing = _listed(call, "kv_list_namespaces", arguments, "namespaces", whole=whole)
    if as_json:
        print_json(listing)
        return
    console().print(_table(listing, with_values=bool(arguments.get("include_values"))))
    if listing["next_cursor"] is not None:
        click.echo(f"more: --cursor {shell_word(listing['next_cursor'])}")


def _listed(call: Call, tool: str, arguments: Mapping[str, Any], rows: str, *, whole: bool) -> dict[str, Any]:
    """A page or, put together as one, all pages from there on."""
    page = call(tool, arguments)
    found = page[rows]
    while whole and page["next_cursor"] is not None:
        page = call(tool, {**arguments, "cursor": page["next_cursor"]})
        found += page[rows]
    return {**page, rows: found}


def _table(listing: Mapping[str, Any], *, with_values: bool) -> Table:
    if "namespaces" in listing:
        return usage_table(NamespaceList.from_dict(listing).namespaces)
    values = ("value",) if with_values else ()
    table = make_table("key", "version", "bytes", "expires in", *values, numbers=("version", "bytes", "expires in"))
    for entry in listing["entries"]:
        ttl = seconds_text(entry["ttl_seconds"]) if "ttl_seconds" in entry else ""
        cells = (str(entry["version"]), f"{entry['size_bytes']:,}", ttl)
        table.add_row(shown_name(entry["key"]), *cells, *(_cut(entry["value"]) for _ in values))
    return table


def _cut(value: Any) -> Text:
    text = json_text(value)
    return Text(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")
