"""Reads what operators see of a store, with a bounded query for each part."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final

from kvworker.adapters.sql.executor import Executor
from kvworker.adapters.sql.listing import ledger_of
from kvworker.adapters.sql.schema import metadata
from kvworker.adapters.sql.write import Limits
from kvworker.model import (
    EXPIRY_RANGES,
    MOST_COUNTED,
    ExpiringEntries,
    ExpiryReport,
    TableSize,
    UsagePage,
    UsageQuery,
)

#: The range of expired entries, and those of the others. Null is the beginning of time.
_RANGES: Final = tuple(zip((None, 0, *EXPIRY_RANGES), (0, *EXPIRY_RANGES), strict=False))


def rank_usage(executor: Executor, query: UsageQuery, limits: Limits) -> UsagePage:
    """Read a page of ledgers in the order of a checked query."""
    params = {
        **asdict(query),
        "patterns": None if query.patterns is None else json.dumps(query.patterns),
        "direction": -1 if query.descending else 1,
        "namespace_bytes": limits.namespace_bytes,
        "entry_limit": limits.entries,
        "record_limit": limits.records,
    }
    rows = executor.run(lambda connection: executor.dialect.run(connection, "rank_usage", params).fetchall())
    return UsagePage(tuple(ledger_of(row[:-1], limits) for row in rows), rows[0][-1] if rows else 0)


def expiry_report(executor: Executor) -> ExpiryReport:
    """Count entries by the time until they expire. Each count stops at ``MOST_COUNTED``."""
    params = {"ranges": json.dumps(_RANGES), "most_rows": MOST_COUNTED}
    rows = executor.run(lambda connection: executor.dialect.run(connection, "count_expiring", params).fetchall())
    counts = [count for count, _ in rows]
    ahead = [
        ExpiringEntries(after or 0, until, count) for (after, until), count in zip(_RANGES[1:], counts[1:], strict=True)
    ]
    return ExpiryReport(counts[0], max(0.0, rows[0][1] or 0.0), tuple(ahead))


def table_sizes(executor: Executor) -> tuple[TableSize, ...]:
    """Read the size of each of our tables, or of the database as a whole."""
    params: dict[str, Any] = {"tables": json.dumps(sorted(metadata.tables))}
    rows = executor.run(lambda connection: executor.dialect.run(connection, "table_sizes", params).fetchall())
    return tuple(TableSize(*row) for row in rows)
