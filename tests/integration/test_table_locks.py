"""A session that locks a table hides from operators only what needs that table, and it is named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any, LiteralString

import psycopg
import pytest
from rich.console import Console

from kvworker import Settings
from kvworker.adapters import KeyValueStoreAdapter
from kvworker.cli.stats_tables import overview_tables
from kvworker.ops.database import open_adapter
from kvworker.ops.doctor import Finding, run_checks
from kvworker.ops.overview.collector import STORE_PARTS, Overview, OverviewCollector
from kvworker.ops.overview.locks import lock_text
from kvworker.testing import eventually
from tests.support.servers import PostgresServer, free_port

#: The parts that need each table. The sizes are those of all tables.
CONCERNED = {
    "kv_ledgers": {"total", "fullest", "tables"},
    "kv_entries": {"expiry", "tables"},
    "kv_records": {"tables"},
    "kv_schema_version": {"total", "fullest", "expiry", "tables"},
}


def settings_of(url: str) -> Settings:
    """Return the settings of a store whose broker is away."""
    adapters = {"postgres": {"url": url}}
    return Settings.from_mapping(
        {
            "tools": {"kv_store": {"default_adapter": "postgres", "adapters": adapters}},
            "queue": {"broker_url": f"redis://127.0.0.1:{free_port()}/0", "remote_control": False},
        }
    )


@pytest.fixture
def settings(postgres_url: str) -> Settings:
    return settings_of(postgres_url)


@contextlib.contextmanager
def connected(url: str, program: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url.replace("+psycopg", ""), application_name=program) as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def locker(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with connected(postgres_url, "nightly job") as connection:
        yield connection


def collect(settings: Settings) -> Overview:
    with contextlib.closing(OverviewCollector(settings)) as collector:
        return collector.collect()


def check_database(settings: Settings) -> Finding:
    (finding,) = run_checks(settings, ("database",))
    return finding


@pytest.mark.parametrize("table", CONCERNED)
def test_a_locked_table_hides_only_what_needs_it(
    settings: Settings, locker: psycopg.Connection[Any], table: LiteralString
) -> None:
    locker.execute("LOCK TABLE " + table)
    overview = collect(settings)
    store = overview.stores["postgres"]
    problems = {name: problem for name in STORE_PARTS if (problem := getattr(store, name).problem)}
    assert set(problems) == CONCERNED[table]
    assert set(problems.values()) == {"a lock was not granted in time"}
    assert store.connections.value is not None
    (lock,) = store.connections.value.locks
    assert (lock.table, lock.mode, lock.pid) == (table, "AccessExclusiveLock", locker.info.backend_pid)
    printed = StringIO()
    Console(file=printed, width=200).print(overview_tables(overview))
    named = f"process {locker.info.backend_pid} (user {locker.info.user}, program nightly job)"
    assert f"{table} is locked: {named} holds AccessExclusiveLock; its transaction began" in printed.getvalue()
    finding = check_database(settings)
    assert finding.detail.startswith(f"postgres: {table} is locked: {named}")
    assert "pg_terminate_backend" in finding.fix
    locker.rollback()
    assert collect(settings).stores["postgres"].connections.value.locks == ()  # type: ignore[union-attr]
    assert check_database(settings).ok


def test_a_session_that_waits_for_a_lock_is_named_with_those_ahead(
    settings: Settings, postgres_url: str, locker: psycopg.Connection[Any]
) -> None:
    locker.execute("SELECT FROM kv_entries")
    with connected(postgres_url, "migration") as waiting, ThreadPoolExecutor(1) as thread:
        altered = thread.submit(waiting.execute, "ALTER TABLE kv_entries ADD COLUMN more int")
        eventually(lambda: not check_database(settings).ok, timeout_seconds=60)
        detail = check_database(settings).detail
        locker.rollback()
        altered.result(60)
        named = f"process {waiting.info.backend_pid} (user {waiting.info.user}, program migration)"
    what = f"waits for AccessExclusiveLock behind process {locker.info.backend_pid}, and others behind it"
    assert detail.startswith(f"postgres: kv_entries is locked: {named} {what}; its transaction began")


def test_many_locks_hide_none_of_another_table(settings: Settings, postgres_url: str) -> None:
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(13) as threads:
        holders = [stack.enter_context(connected(postgres_url, "reader")) for _ in range(7)]
        for holder in holders:
            holder.execute("SELECT FROM kv_entries, kv_ledgers")
        tables = ["kv_entries"] * 12 + ["kv_ledgers"]
        waiting = [threads.submit(lock_table, postgres_url, table) for table in tables]
        eventually(lambda: count_waiting(postgres_url) == len(tables), timeout_seconds=60)
        store = collect(settings).stores["postgres"]
        for holder in holders:
            holder.rollback()
        assert [each.result(60) for each in waiting] == [None] * len(tables)
    assert store.connections.value is not None
    locks = store.connections.value.locks
    assert [lock.table for lock in locks] == ["kv_entries"] * 5 + ["kv_ledgers"]
    text = lock_text(locks[-1])
    assert f"behind process {locks[-1].waits_for[0]}, process " in text
    assert "and 2 more, and others behind it" in text


def lock_table(url: str, table: LiteralString) -> None:
    with connected(url, "migration") as connection:
        connection.execute("LOCK TABLE " + table)


def count_waiting(url: str) -> int:
    with connected(url, "observer") as connection:
        (row,) = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchall()
        return int(row[0])


def test_a_lock_on_a_partition_is_one_on_its_table(postgres_server: PostgresServer) -> None:
    with postgres_server.temporary_database(partitioned=True) as database:
        url = postgres_server.url(database)
        with connected(url, "job") as locker:
            locker.execute("LOCK TABLE kv_ledgers_1 IN SHARE MODE")
            finding = check_database(settings_of(url))
    assert finding.detail.startswith("postgres: kv_ledgers is locked: process ")
    assert "program job) holds ShareLock" in finding.detail


@pytest.fixture
def monitored(settings: Settings, locker: psycopg.Connection[Any]) -> Iterator[KeyValueStoreAdapter]:
    """The store's adapter, with an entry of which the locker has locked the row."""
    with open_adapter(settings) as adapter:
        adapter.set("n", "k", 1)
        locker.execute("SELECT FROM kv_entries FOR UPDATE")
        yield adapter
        locker.rollback()


def test_a_session_that_locks_rows_is_named_with_the_number_of_those_who_wait(
    settings: Settings, monitored: KeyValueStoreAdapter, locker: psycopg.Connection[Any]
) -> None:
    assert check_database(settings).ok
    with ThreadPoolExecutor(3) as threads:
        # All but the first wait for each other.
        waiting = [threads.submit(monitored.set, "n", "k", value) for value in range(3)]
        eventually(lambda: "3 sessions" in check_database(settings).detail, timeout_seconds=60)
        finding, overview = check_database(settings), collect(settings)
        locker.rollback()
        assert {each.result(60).value for each in waiting} == {0, 1, 2}
    named = f"process {locker.info.backend_pid} (user {locker.info.user}, program nightly job)"
    assert finding.detail.startswith(f"postgres: rows are locked: {named} keeps 3 sessions waiting for ")
    assert finding.detail.count("rows are locked") == 1
    assert "pg_terminate_backend" in finding.fix
    connections = overview.stores["postgres"].connections.value
    assert connections is not None
    assert [session.pid for session in connections.blockers] == [locker.info.backend_pid]
    assert check_database(settings).ok


def test_sessions_that_wait_for_rows_of_other_tables_are_not_the_stores(settings: Settings, postgres_url: str) -> None:
    with connected(postgres_url, "job") as holder, connected(postgres_url, "other job") as waiter:
        holder.execute("CREATE TABLE other AS SELECT 1 AS a")
        holder.commit()
        holder.execute("SELECT FROM other FOR UPDATE")
        with ThreadPoolExecutor(1) as thread:
            updated = thread.submit(waiter.execute, "UPDATE other SET a = 2")
            eventually(lambda: has_long_wait(postgres_url), timeout_seconds=60)
            finding = check_database(settings)
            holder.rollback()
            updated.result(60)
    assert finding.ok


def has_long_wait(url: str) -> bool:
    with connected(url, "observer") as connection:
        query = "SELECT FROM pg_locks WHERE clock_timestamp() - waitstart > '1.5 s'"
        return bool(connection.execute(query).fetchall())


def test_locks_without_a_session_that_waits_are_no_fault(settings: Settings, locker: psycopg.Connection[Any]) -> None:
    locker.execute("INSERT INTO kv_ledgers (namespace, used_bytes, entry_count, limit_bytes) VALUES ('n', 0, 0, NULL)")
    locker.execute("SELECT FROM kv_entries FOR UPDATE")
    assert check_database(settings).ok
    assert set(collect(settings).problems()) == {"queues"}
