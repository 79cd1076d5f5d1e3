"""Reading entries: one, several as of one moment, or the whole store page by page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from kvworker.adapters.sql.executor import Executor
from kvworker.adapters.sql.operation_records import ResultContext, entry_result, found_result
from kvworker.adapters.sql.write import Write
from kvworker.errors import ReadTooLargeError, ReplayTooLargeError
from kvworker.model import MAX_READ_BYTES, GetResult, decode_value


def read_entry(executor: Executor, namespace: str, key: str) -> GetResult:
    """Read an entry. A miss, or an expired entry, gives ``found=False``."""
    params = {"namespace": namespace, "key": key}
    row = executor.run(lambda connection: executor.dialect.fetch_one(connection, "get_entry", params), operation="get")
    return entry_result(namespace, key, row)


def read_steps(executor: Executor, write: Write) -> tuple[GetResult, ...]:
    """Read the entries that the steps of a read-only batch ask for.

    Raises:
        ReadTooLargeError: the values are too large together.
    """

    def _read(connection: Any) -> tuple[list[Any], float]:
        return executor.dialect.read_entries(connection, write.namespace, write.keys)

    rows, now = executor.run(_read, operation="get")
    sizes = {row[0]: row[3] for row in rows}
    if sum(sizes.get(step.key, 0) for step in write.steps) > MAX_READ_BYTES:
        raise ReadTooLargeError(MAX_READ_BYTES)
    context = ResultContext(now, replayed=False)
    found = {
        key: found_result((write.namespace, key), (text, expires_at, version), context)
        for key, text, expires_at, _, version in rows
    }
    return tuple(found.get(step.key) or GetResult(write.namespace, step.key, found=False) for step in write.steps)


def read_steps_again(executor: Executor, write: Write) -> tuple[GetResult, ...]:
    """Read what a batch reads that was applied before: its record holds no values.

    Raises:
        ReplayTooLargeError: the values are too large together by now.
    """
    reads = tuple(step for step in write.steps if step.action == "get")
    try:
        return read_steps(executor, replace(write, steps=reads))
    except ReadTooLargeError as error:
        raise ReplayTooLargeError(error.limit_bytes) from None


def export_entries(executor: Executor, namespace: str | None, page_rows: int) -> Iterator[GetResult]:
    """Yield every live entry in order of namespace and key.

    Each page is a short statement, so an export holds neither a snapshot nor a lock. An entry that is written during
    the export may or may not be in it.
    """
    after = (namespace or "", "")
    while True:
        rows = _read_page(executor, namespace, after, page_rows)
        for name, key, text, ttl_seconds in rows:
            # It may have expired while its page was read.
            if ttl_seconds is None or ttl_seconds > 0:
                yield GetResult(name, key, found=True, value=decode_value(text), ttl_seconds=ttl_seconds)
        if len(rows) < page_rows:
            return
        after = (rows[-1][0], rows[-1][1])


def _read_page(executor: Executor, namespace: str | None, after: tuple[str, str], page_rows: int) -> list[Any]:
    params = {
        "namespace": namespace,
        "after_namespace": after[0],
        "after_key": after[1],
        "page_rows": page_rows,
    }
    return executor.run(lambda connection: executor.dialect.run(connection, "export_page", params).fetchall())
