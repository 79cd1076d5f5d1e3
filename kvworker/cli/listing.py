"""``list``: asks a worker for keys or namespaces, one page or all of them."""

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

# A table cuts values to this length, because a value can have a megabyte.
_SHOWN_CHARACTERS = 200


@click.command("list")
@click.argument("namespace", required=False)
@click.option("--prefix", metavar="TEXT", help="List only names that begin with TEXT.")
@click.option("--limit", type=int, metavar="N", help=f"Number of names at most [default: {DEFAULT_PAGE_ROWS}].")
@click.option("--cursor", metavar="C", help="Continue where an earlier page ended.")
@click.option("--all", "whole", is_flag=True, help="List all pages; --timeout then bounds each page.")
@click.option("--values", "include_values", is_flag=True, help="Include the values; the table cuts long ones.")
@tool_command
def list_command(call: Call, *, as_json: bool, whole: bool, **arguments: Any) -> None:
    """List the keys of NAMESPACE or, without one, the namespaces.

    Namespaces are listed with their usage. A worker reads them, so you need no access to the database.

    If there are more, the last line gives the --cursor of the next page. With --json it is "next_cursor", which is
    null on the last page. Pages do not share a snapshot, so an entry that is written meanwhile may or may not be
    listed.
    """
    if whole:
        if arguments["limit"] is not None:
            raise click.UsageError("--all and --limit exclude each other")
        arguments["limit"] = MAX_PAGE_ROWS
    if arguments["namespace"] is not None:
        listing = _list(call, "kv_list_keys", arguments, "entries", whole=whole)
    elif arguments.pop("include_values"):
        raise click.UsageError("--values needs a NAMESPACE")
    else:
        del arguments["namespace"]
        listing = _list(call, "kv_list_namespaces", arguments, "namespaces", whole=whole)
    if as_json:
        print_json(listing)
        return
    console().print(_table(listing, with_values=bool(arguments.get("include_values"))))
    if listing["next_cursor"] is not None:
        click.echo(f"more: --cursor {shell_word(listing['next_cursor'])}")


def _list(call: Call, tool: str, arguments: Mapping[str, Any], field: str, *, whole: bool) -> dict[str, Any]:
    """Fetch one page, or join it with all the pages that follow. ``field`` names the rows in the result."""
    page = call(tool, arguments)
    rows = page[field]
    while whole and page["next_cursor"] is not None:
        page = call(tool, {**arguments, "cursor": page["next_cursor"]})
        rows += page[field]
    return {**page, field: rows}


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
