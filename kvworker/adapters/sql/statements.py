"""The named SQL statements of a dialect, read once from its ``.sql`` files.

A file consists of parts. ``-- name: NAME`` begins a statement. ``-- fragment: NAME`` begins text that statements and
other fragments share: a line ``-- include: NAME`` is replaced by it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from kvworker.adapters.sql.schema import PREVIOUS_VERSION, SCHEMA_VERSION

_PART = re.compile(r"^-- (name|fragment): (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)
#: psycopg parses a statement of more than 4096 characters on every call, which takes longer than running it.
_COMMENT_OR_INDENT = re.compile(r"^(--.*\n?|[ ]+)", re.MULTILINE)

#: The statements of all dialects. The type checker refuses any other name, and a test compares these with the files.
StatementName: TypeAlias = Literal[
    # Both dialects
    "add_namespaces",
    "all_usage",
    "begin_snapshot",
    "correct_ledger",
    "correct_namespaces",
    "count_expiring",
    "count_namespaces",
    "create_global_ledger",
    "create_ledger",
    "database_clock",
    "delete_entries",
    "delete_entry",
    "export_page",
    "find_expired",
    "find_records",
    "found_namespace",
    "get_entry",
    "has_changed",
    "ledger_usage",
    "list_keys",
    "list_namespaces",
    "lock_ledger",
    "lock_ledgers",
    "lock_namespaces",
    "next_namespace",
    "prune_batch",
    "prune_previous_batch",
    "purge_batch",
    "rank_usage",
    "record_refusal",
    "remove_empty_ledgers",
    "remove_ledger",
    "schema_version",
    "set_quota",
    "sum_entries",
    "sum_ledgers",
    "sweep_batch",
    "table_sizes",
    "verify_entries",
    "verify_global_ledger",
    "verify_ledgers",
    "verify_records",
    "verify_previous_records",
    "withdraw_refusals",
    # Only PostgreSQL
    "append_items",
    "append_items_globally",
    "begin",
    "bound_inspection",
    "bound_lock_waits",
    "bound_transaction",
    "count_connections",
    "delete_arrived",
    "delete_entry_globally",
    "delete_entry_if_version",
    "delete_entry_if_version_globally",
    "explain_refusal",
    "fill_shares",
    "get_entries",
    "increment_entry",
    "increment_entry_globally",
    "increment_in_place",
    "lock_entries",
    "lock_free_shares",
    "make_shares",
    "merge_shares",
    "missing_rights",
    "read_entries",
    "set_entry",
    "set_entry_globally",
    "set_entry_if_version",
    "set_entry_if_version_globally",
    "set_entry_unless",
    "set_entry_unless_globally",
    "set_in_place",
    "set_in_place_if_version",
    "stamp_by_clock",
    "store_plan",
    "table_locks",
    "take_entry",
    "take_entry_globally",
    "take_from_limit_in_place",
    "blocking_sessions",
    # Only SQLite
    "charge_global_ledger",
    "charge_ledger",
    "credit_ledger",
    "read_entry",
    "record_operation",
    "store_entry",
    "withdraw_previous_refusals",
]


#: The file with the statements about operation records, by the version of the schema.
_RECORDS: Final = {PREVIOUS_VERSION: f"records_{PREVIOUS_VERSION}.sql", SCHEMA_VERSION: "records.sql"}


@cache
def load_statements(package: str, version: str = SCHEMA_VERSION) -> Mapping[str, str]:
    """Read the statements of a dialect's package by name, with fragments included, comments and indentation removed.

    Args:
        package: The dialect's package.
        version: The version of the schema, which decides what the statements do with operation records.

    Raises:
        KeyError: a statement includes a fragment that does not exist.
    """
    sources = {"name": dict[str, str](), "fragment": dict[str, str]()}
    for file in (files(package) / "sql").iterdir():
        if file.name.startswith("records") and file.name != _RECORDS[version]:
            continue
        _, *parts = _PART.split(file.read_text(encoding="utf-8"))
        for kind, name, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            sources[kind][name] = body.strip("\n")

    def expand(body: str) -> str:
        """Replace each include by the fragment that it names, which may hold includes itself."""
        return _INCLUDE.sub(lambda match: expand(sources["fragment"][match[1]]), body)

    return MappingProxyType(
        {name: _COMMENT_OR_INDENT.sub("", expand(body)).strip() for name, body in sources["name"].items()}
    )
