"""Compares a database's schema with the one that the migrations make. Additional objects are ignored."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Final

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, Table, inspect, text
from sqlalchemy.exc import SAWarning

from kvworker.adapters.sql.migrations.revisions import read_state
from kvworker.adapters.sql.schema import PREVIOUS_VERSION, metadata, previous_records

#: A build of an index that failed leaves one that no statement uses, but every write maintains.
_INVALID_INDEXES: Final = text(
    "SELECT indexrelid::regclass::text, indrelid::regclass::text FROM pg_index"
    " WHERE NOT indisvalid AND indrelid = to_regclass(:name)"
)


def find_differences(connection: Connection) -> list[str]:
    """List the parts that the tables lack, and those that differ from the migrations."""
    with warnings.catch_warnings():
        # SQLAlchemy cannot reflect SQLite's indexes on expressions, and Alembic warns of that too.
        warnings.filterwarnings("ignore", ".*expression-based index", UserWarning)
        warnings.filterwarnings("ignore", ".*expression-based index", SAWarning)
        return _find_differences(connection)


def _find_differences(connection: Connection) -> list[str]:
    # Until the migration is finished, the previous release's table has another name.
    left_out = set() if inspect(connection).has_table(previous_records.name) else {_unfinished_name(connection)}

    def is_compared(_item: Any, name: str | None, kind: str, reflected: bool, counterpart: Any) -> bool:  # noqa: FBT001
        """Leave out other programs' objects, and indexes: on partitioned tables, these have other names."""
        return (
            kind != "index" and (not reflected or counterpart is not None) and (kind != "table" or name not in left_out)
        )

    context = MigrationContext.configure(connection, opts={"include_object": is_compared, "compare_type": True})
    differences = [
        _describe(*change)
        for changes in compare_metadata(context, metadata)
        # Changes of one column come as a list.
        for change in (changes if isinstance(changes, list) else [changes])
    ]
    for table in metadata.sorted_tables:
        if inspect(connection).has_table(table.name):
            differences += _constraint_differences(connection, table)
            differences += _index_differences(connection, table)
    return differences


def _unfinished_name(connection: Connection) -> str:
    """Return the name of the table that a migration to be finished will make, or an empty string if it is missing."""
    return previous_records.name if read_state(connection).version == PREVIOUS_VERSION else ""


def _describe(kind: str, *details: Any) -> str:
    verb, _, what = kind.partition("_")
    if verb == "add":
        item = details[-1]
        table = getattr(item, "table", None)
        place = "" if table is None else f" of {table.name}"
        return f"the {what} {item.name}{place} is missing"
    _, table_name, column, *_ = details
    return f"the {what} of the column {column} of {table_name} is another one"


def _constraint_differences(connection: Connection, table: Table) -> Iterator[str]:
    found = inspect(connection)
    key = found.get_pk_constraint(table.name)["constrained_columns"]
    if sorted(key) != sorted(column.name for column in table.primary_key):
        yield f"the primary key of {table.name} is missing, or is another one"
    checks = {check["name"] for check in found.get_check_constraints(table.name)}
    for constraint in table.constraints:
        if isinstance(constraint, CheckConstraint) and constraint.name not in checks:
            yield f"the check {constraint.name} of {table.name} is missing"


def _index_differences(connection: Connection, table: Table) -> Iterator[str]:
    indexes = inspect(connection).get_indexes(table.name)
    found = [index["column_names"] for index in indexes if "expressions" not in index]
    # An expression is reflected in the database's own words, or not at all. Its index has another name where tables are
    # partitioned.
    has_expression = connection.dialect.name == "sqlite" or any("expressions" in index for index in indexes)
    for index in table.indexes:
        columns = [column.name for column in index.columns]
        if columns not in found if columns else not has_expression:
            yield f"the index {index.name} of {table.name} is missing"
    if connection.dialect.name == "postgresql":
        for index, name in connection.execute(_INVALID_INDEXES, {"name": table.name}):
            yield f"the index {index} of {name} is invalid"
