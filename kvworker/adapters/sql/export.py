"""Reading the whole store in short statements, so that an export holds no snapshot and no lock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kvworker.adapters.sql.executor import Executor
from kvworker.model import GetResult, decode_value


def export_entries(executor: Executor, namespace: str | None, page_rows: int) -> Iterator[GetResult]:
    """Yield every live entry in order of namespace and key.

    What is written meanwhile is there or not, entry by entry.
    """
    after = (namespace or "", "")
    while True:
        rows = _page(executor, namespace, after, page_rows)
        for name, key, text, ttl_seconds in rows:
            # It may expire while its page is read.
            if ttl_seconds is None or ttl_seconds > 0:
                yield GetResult(name, key, found=True, value=decode_value(text), ttl_seconds=ttl_seconds)
        if len(rows) < page_rows:
            return
        after = (rows[-1][0], rows[-1][1])


def _page(executor: Executor, namespace: str | None, after: tuple[str, str], page_rows: int) -> list[Any]:
    params = {
        "namespace": namespace,
        "after_namespace": after[0],
        "after_key": after[1],
        "page_rows": page_rows,
    }
    return executor.run(lambda connection: executor.dialect.run(connection, "export_page", params).fetchall())
