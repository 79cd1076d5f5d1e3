"""A database whose clock is wrong, and then set right.

The store sees another clock: ``clock_timestamp`` of a schema that is searched before PostgreSQL's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from kvworker.adapters.registry import create_kv_store_adapter
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.recorded_refusals import attempt
from kvworker.errors import InvalidValueTypeError
from kvworker.model import Step
from tests.support.servers import PostgresServer

HOUR_SECONDS = 3600
RETENTION_SECONDS = 500
#: A record expires within a minute after its retention at the latest: the index has places of 64 seconds.
AFTER_RETENTION_SECONDS = RETENTION_SECONDS + 100

_CLOCK = (
    "CREATE SCHEMA clock",
    "CREATE TABLE clock.ahead AS SELECT CAST(0 AS float8) AS seconds",
    "CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE"
    " RETURN pg_catalog.clock_timestamp() + make_interval(secs => (SELECT seconds FROM clock.ahead))",
)

SetClock = Callable[[float], object]


@pytest.fixture
def set_clock(postgres_server: PostgresServer, connection: psycopg.Connection[Any]) -> SetClock:
    """Sets by how many seconds the clock is ahead of the true one."""
    for statement in _CLOCK:
        connection.execute(statement)
    postgres_server.execute(f"ALTER DATABASE {connection.info.dbname} SET search_path = clock, pg_catalog, public")
    return lambda seconds: connection.execute("UPDATE clock.ahead SET seconds = %s", (seconds,))


@pytest.fixture
def adapter(postgres_url: str, set_clock: SetClock) -> Iterator[SqlAdapter]:
    set_clock(0)
    retention = {"operation_retention_seconds": RETENTION_SECONDS}
    with create_kv_store_adapter("postgres", {"url": postgres_url, **retention}) as adapter:
        assert isinstance(adapter, SqlAdapter)
        yield adapter


def assert_consistent(adapter: SqlAdapter, records: int) -> None:
    report = adapter.verify()
    assert report is not None
    assert (report.problems, report.records) == ((), records)
    assert adapter.recompute_ledgers().drifts == ()


def write_each(adapter: SqlAdapter, name: str) -> dict[str, Any]:
    """Make a write of each kind, whose ids and keys begin with a name; ``again`` is a key that every call writes."""
    writes: dict[str, Callable[[], Any]] = {
        "set": lambda: adapter.set("n", "again", "x", operation_id=f"{name} set"),
        "increment": lambda: adapter.increment("n", "counter", operation_id=f"{name} increment"),
        "delete": lambda: adapter.delete("n", "missing", operation_id=f"{name} delete"),
        "batch": lambda: adapter.batch("n", [Step("increment", "counter")], operation_id=f"{name} batch"),
    }
    results = {action: write() for action, write in writes.items()}
    with attempt(name), pytest.raises(InvalidValueTypeError):
        adapter.increment("n", "again", operation_id=f"{name} refused")
    return results


def test_records_outlive_a_clock_that_is_set_back(adapter: SqlAdapter, set_clock: SetClock) -> None:
    set_clock(HOUR_SECONDS)
    ahead = write_each(adapter, "ahead")
    set_clock(0)
    after = write_each(adapter, "after")
    assert after["set"].version > ahead["set"].version
    assert (after["increment"].value, after["batch"].results[0].value) == (3, 4)
    assert not any(result.replayed for result in (*ahead.values(), *after.values()))
    assert_consistent(adapter, 10)

    # Each id is known for its retention at least, whatever the clock was.
    assert adapter.prune_operations().deleted_rows == 0
    set_clock(RETENTION_SECONDS - 100)
    assert adapter.prune_operations().deleted_rows == 0
    assert all(result.replayed for name in ("ahead", "after") for result in write_each(adapter, name).values())

    # Records of after are not kept for an hour, though the versions that they hold are ahead.
    set_clock(2 * AFTER_RETENTION_SECONDS)
    assert adapter.prune_operations().deleted_rows == len(after) + 1
    assert all(result.replayed for result in write_each(adapter, "ahead").values())
    set_clock(HOUR_SECONDS + 2 * AFTER_RETENTION_SECONDS)
    assert adapter.prune_operations().deleted_rows == len(ahead) + 1
    assert_consistent(adapter, 0)


def test_records_of_a_machine_without_a_clock_are_pruned(adapter: SqlAdapter, set_clock: SetClock) -> None:
    """It begins in 1970. No system's clock can be set to an earlier time."""
    set_clock(1 - time.time())
    first = write_each(adapter, "first")
    assert all(result.replayed for result in write_each(adapter, "first").values())
    set_clock(0)
    assert_consistent(adapter, len(first) + 1)
    assert adapter.prune_operations().deleted_rows == len(first) + 1
    assert_consistent(adapter, 0)
