"""The roles of config/roles.sql and config/grants.sql: their rights, and the errors where a right is missing."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from kvworker import Settings
from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sql.adapter import SqlAdapter
from kvworker.adapters.sql.migrations import upgrade_to
from kvworker.adapters.sql.schema import PREVIOUS_VERSION, SCHEMA_VERSION
from kvworker.errors import ConfigurationError
from kvworker.ops.doctor import run_checks
from kvworker.testing import AdapterConformance, AdapterFactory
from tests.integration.test_ledger_shares import rows, split
from tests.support.adapters import adapters_over
from tests.support.documents import ROOT
from tests.support.processes import wait_until
from tests.support.servers import PostgresServer

OWNER, WORKER, MONITOR = "kvworker_owner", "kvworker_worker", "kvworker_monitor"
TABLES = ("kv_entries", "kv_ledgers", "kv_records")
GRANTS = [
    *((right, table) for table in TABLES for right in ("SELECT", "INSERT", "UPDATE", "DELETE")),
    ("SELECT", "kv_schema_version"),
]


def url_as(server: PostgresServer, role: str, database: str) -> str:
    return make_url(server.url(database)).set(username=role).render_as_string()


def make_adapter(url: str, **config: Any) -> KeyValueStoreAdapter:
    return create_kv_store_adapter("postgres", {"url": url, "namespace_quota_bytes": 100_000, **config})


@pytest.fixture(scope="module")
def granted(postgres_server: PostgresServer) -> Iterator[str]:
    """A database that was set up as docs/how-to/secure.md says."""
    database = postgres_server.create_database(template=None)
    postgres_server.run_file(ROOT / "config" / "roles.sql", database)
    with make_adapter(url_as(postgres_server, OWNER, database)) as adapter:
        assert isinstance(adapter, SqlAdapter)
        adapter.migrate()
    postgres_server.run_file(ROOT / "config" / "grants.sql", database, OWNER)
    yield database
    postgres_server.drop_database(database)
    for role in (OWNER, WORKER, MONITOR):
        postgres_server.execute(f"DROP ROLE {role}")


@pytest.fixture
def emptied(postgres_server: PostgresServer, granted: str) -> str:
    postgres_server.execute(
        "DELETE FROM kv_entries; DELETE FROM kv_ledgers; DELETE FROM kv_records; UPDATE kv_totals SET total = 0",
        granted,
    )
    return granted


@pytest.fixture
def worker_url(postgres_server: PostgresServer, emptied: str) -> str:
    return url_as(postgres_server, WORKER, emptied)


@pytest.fixture
def monitor_url(postgres_server: PostgresServer, emptied: str) -> str:
    return url_as(postgres_server, MONITOR, emptied)


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


class TestWorkersRole(AdapterConformance):
    """The whole contract, maintenance included, holds under the worker's role."""

    @pytest.fixture
    def make_adapter(self, worker_url: str) -> Iterator[AdapterFactory]:
        with adapters_over("postgres", {"url": worker_url}) as factory:
            yield factory


@pytest.mark.parametrize("ledger", ["n", ""])
def test_the_workers_role_splits_and_merges_ledgers(worker_url: str, ledger: str) -> None:
    with connected(worker_url) as connection, make_adapter(worker_url, global_quota_bytes=100_000) as adapter:
        split(connection, adapter, ledger)
        assert adapter.recompute_ledgers().drifts == ()


def test_the_doctor_accepts_the_workers_role(worker_url: str, valkey_url: str) -> None:
    findings = list(run_checks(settings(worker_url, valkey_url), ("database", "schema", "results", "clocks")))
    assert all(finding.ok for finding in findings), findings


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP TABLE kv_entries",
        "TRUNCATE kv_entries",
        "ALTER TABLE kv_ledgers DROP CONSTRAINT kv_ledgers_namespace_quota",
        "CREATE TRIGGER mine BEFORE INSERT ON kv_entries EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "ALTER TABLE kv_entries OWNER TO kvworker_worker",
        "UPDATE kv_schema_version SET version_num = '0000'",
        "CREATE ROLE mine",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT * FROM pg_authid",
    ],
)
def test_the_workers_role_can_do_nothing_else(worker_url: str, statement: LiteralString) -> None:
    with connected(worker_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_the_monitor_sees_usage_and_no_stored_data(worker_url: str, monitor_url: str) -> None:
    with make_adapter(worker_url, global_quota_bytes=1000) as worker:
        worker.set("n", "k", "x")
    with make_adapter(monitor_url, global_quota_bytes=1000) as monitor:
        assert [(usage.namespace, usage.used_bytes) for usage in monitor.usage()] == [("n", 3), (None, 3)]
        for forbidden in (lambda: monitor.get("n", "k"), lambda: monitor.set("n", "k", 1), monitor.sweep_expired):
            with pytest.raises(ConfigurationError, match="may not do this"):
                forbidden()
    with connected(monitor_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("SELECT result FROM kv_records")


@pytest.mark.parametrize("role", [WORKER, MONITOR])
def test_only_the_owner_migrates(postgres_server: PostgresServer, emptied: str, role: str) -> None:
    postgres_server.execute("ALTER TABLE kv_schema_version RENAME TO was_the_version", emptied)
    try:
        with make_adapter(url_as(postgres_server, role, emptied)) as adapter:
            assert isinstance(adapter, SqlAdapter)
            with pytest.raises(ConfigurationError, match="`kvworker migrate` must run as the owner"):
                adapter.migrate()
    finally:
        postgres_server.execute("ALTER TABLE was_the_version RENAME TO kv_schema_version", emptied)


@pytest.mark.parametrize(("right", "table"), GRANTS)
def test_a_missing_grant_is_reported_at_once(
    postgres_server: PostgresServer, emptied: str, worker_url: str, right: str, table: str
) -> None:
    postgres_server.execute(f"REVOKE {right} ON {table} FROM {WORKER}", emptied)
    try:
        with make_adapter(worker_url) as adapter, pytest.raises(ConfigurationError) as caught:
            do_everything(adapter)
        assert table in str(caught.value)
        assert "config/grants.sql" in str(caught.value)
    finally:
        postgres_server.execute(f"GRANT {right} ON {table} TO {WORKER}", emptied)


def do_everything(adapter: KeyValueStoreAdapter) -> None:
    adapter.set("n", "k", 1)
    adapter.increment("n", "k")
    adapter.get("n", "k")
    adapter.delete("n", "k")
    adapter.sweep_expired()
    adapter.prune_operations()
    adapter.clear("n")
    adapter.recompute_ledgers()


def test_an_invisible_schema_is_reported(postgres_server: PostgresServer, emptied: str, worker_url: str) -> None:
    postgres_server.execute(f"REVOKE USAGE ON SCHEMA public FROM {WORKER}", emptied)
    try:
        (finding,) = run_checks(settings(worker_url), ("schema",))
        assert not finding.ok
        assert "may not use their schema" in finding.detail
    finally:
        postgres_server.execute(f"GRANT USAGE ON SCHEMA public TO {WORKER}", emptied)


@pytest.fixture
def previous(postgres_server: PostgresServer, granted: str) -> Iterator[str]:
    """A database with the schema and the rights of the previous release, which its owner made."""
    database = postgres_server.create_database(template=None)
    postgres_server.execute(f"GRANT CREATE ON SCHEMA public TO {OWNER}", database)
    engine = create_engine(url_as(postgres_server, OWNER, database))
    with engine.begin() as connection:
        upgrade_to(connection, PREVIOUS_VERSION)
        tables = "kv_entries, kv_ledgers, kv_operations, kv_totals"
        connection.execute(text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {WORKER}"))
        connection.execute(text(f"GRANT SELECT ON kv_schema_version TO {WORKER}"))
    engine.dispose()
    yield database
    postgres_server.drop_database(database)


def add_entries(adapter: KeyValueStoreAdapter, name: str, stop: threading.Event) -> int:
    """Add an entry with each write, so that every one charges a ledger, and repeat it. Return how many."""
    for number in itertools.count(1):
        key = f"{name}/{number}"
        first, again = (adapter.increment("n", key, operation_id=key) for _ in range(2))
        assert (first.replayed, again.replayed, again.value, again.version) == (False, True, 1, first.version)
        if stop.is_set():
            return number
    return 0


def test_the_owner_finishes_a_migration_while_the_workers_role_writes_to_split_ledgers(
    postgres_server: PostgresServer, previous: str
) -> None:
    owner_url, worker_url = (url_as(postgres_server, role, previous) for role in (OWNER, WORKER))
    stop = threading.Event()
    with (
        make_adapter(owner_url) as owner,
        make_adapter(worker_url, global_quota_bytes=100_000, namespace_entry_limit=10**6) as worker,
        connected(postgres_server.url(previous)) as connection,
        ThreadPoolExecutor(4) as threads,
    ):
        assert isinstance(owner, SqlAdapter)
        owner.migrate()
        postgres_server.run_file(ROOT / "config" / "grants.sql", previous, OWNER)
        split(connection, worker)
        counting = [threads.submit(add_entries, worker, str(thread), stop) for thread in range(4)]
        try:
            wait_until(lambda: worker.usage("n")[0].entry_count > 50, what="writes before the end")
            owner.migrate(finish=True)
            finished = worker.usage("n")[0].entry_count
            wait_until(lambda: worker.usage("n")[0].entry_count > finished + 50, what="writes after it")
            assert rows(connection, "n") > 1
        finally:
            stop.set()
        counted = sum(thread.result(timeout=60) for thread in counting)
        assert owner.schema_version() == SCHEMA_VERSION
        assert worker.increment("n", "0/1", operation_id="0/1").replayed
        report = worker.verify()
        assert report is not None
        # The split made two.
        assert (report.problems, report.entries) == ((), counted + 2)
        assert worker.recompute_ledgers().drifts == ()


def settings(url: str, redis_url: str = "redis://127.0.0.1:1/0") -> Settings:
    adapters = {"postgres": {"url": url}}
    return Settings.from_mapping(
        {
            "tools": {"kv_store": {"default_adapter": "postgres", "adapters": adapters}},
            "queue": {"broker_url": redis_url},
        }
    )
