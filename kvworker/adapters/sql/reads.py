"""Reading entries: one, or several as they are at one moment."""

from __future__ import annotations

from typing import Any

from kvworker.adapters.sql.dialect import Write
from kvworker.adapters.sql.executor import Executor
from kvworker.adapters.sql.operation_records import Moment, entry_result, found_result
from kvworker.errors import ReadTooLargeError
from kvworker.model import MAX_READ_BYTES, GetResult


def read_entry(executor: Executor, namespace: str, key: str) -> GetResult:
    """Read an entry. A miss, or an expired entry, gives ``found=False``."""
    params = {"namespace": namespace, "key": key}
    row = executor.run(lambda connection: executor.dialect.fetch_one(connection, "get_entry", params))
    return entry_result(namespace, key, row)


def read_steps(executor: Executor, write: Write) -> tuple[GetResult, ...]:
    """Read what the steps of a batch that writes nothing ask for.

    Raises:
        ReadTooLargeError: the values are too large together.
    """

    def read(connection: Any) -> tuple[list[Any], float]:
        return executor.dialect.read_entries(connection, write.namespace, write.keys)

    rows, now = executor.run(read)
    sizes = {row[0]: row[3] for row in rows}
    if sum(sizes.get(step.key, 0) for step in write.steps) > MAX_READ_BYTES:
        raise ReadTooLargeError(MAX_READ_BYTES)
    moment = Moment(now, replayed=False)
    found = {
        key: found_result((write.namespace, key), (text, expires_at, version), moment)
        for key, text, expires_at, _, version in rows
    }
    return tuple(found.get(step.key) or GetResult(write.namespace, step.key, found=False) for step in write.steps)
