"""A sweep while other transactions hold, rewrite or replace the entries that it found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sql.statements import load_statements
from tests.support.servers import PostgresServer

#: The number of entries that one search finds.
FOUND_ROWS = 2000
STATEMENTS = load_statements("kvworker.adapters.postgres")


@pytest.fixture(params=["whole", "partitioned"])
def postgres_url(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.temporary_database(partitioned=request.param == "partitioned") as name:
        yield postgres_server.url(name)


@pytest.fixture
def adapter(postgres_url: str) -> Iterator[KeyValueStoreAdapter]:
    with create_kv_store_adapter("postgres", {"url": postgres_url}) as adapter:
        yield adapter


def add_expired(
    connection: psycopg.Connection[Any], adapter: KeyValueStoreAdapter, rows: int, *, at_once: bool = False
) -> None:
    """Add entries that expired one after the other, beginning with key '1', or all at one instant."""
    connection.execute(
        "INSERT INTO kv_entries (namespace, key, value, expires_at, size_bytes, previous_bytes)"
        " SELECT 'namespace ' || i %% 3, i, '1', '2020-01-01'::timestamptz + i * %s::interval, 1, 0"
        " FROM generate_series(1, %s) i",
        ("0 s" if at_once else "1 s", rows),
    )
    adapter.recompute_ledgers()


@contextmanager
def held(connection: psycopg.Connection[Any], first: int) -> Iterator[None]:
    """Hold the first entries like a writer that has not committed."""
    with connection.transaction():
        connection.execute("SELECT 1 FROM kv_entries WHERE key::int <= %s FOR UPDATE", (first,))
        yield


def keys(connection: psycopg.Connection[Any]) -> list[int]:
    return sorted(int(key) for (key,) in connection.execute("SELECT key FROM kv_entries"))


def test_a_sweep_skips_entries_that_others_hold(
    adapter: KeyValueStoreAdapter, connection: psycopg.Connection[Any]
) -> None:
    held_rows = 2 * FOUND_ROWS + 1
    add_expired(connection, adapter, held_rows + 5)
    with held(connection, held_rows):
        assert adapter.sweep_expired(batch_rows=200).deleted_rows == 5
    assert keys(connection) == list(range(1, held_rows + 1))
    report = adapter.sweep_expired(batch_rows=200)
    assert (report.deleted_rows, report.complete) == (held_rows, True)
    assert adapter.recompute_ledgers().drifts == ()


@pytest.mark.parametrize(
    ("held_rows", "free_rows"), [(FOUND_ROWS + 1, 0), (FOUND_ROWS, 1000), (FOUND_ROWS - 1, 20_000)]
)
def test_a_sweep_skips_an_instant_of_which_others_hold_most_entries(
    adapter: KeyValueStoreAdapter, connection: psycopg.Connection[Any], held_rows: int, free_rows: int
) -> None:
    add_expired(connection, adapter, held_rows + free_rows, at_once=True)
    with held(connection, held_rows):
        report = adapter.sweep_expired(batch_rows=200)
    assert (report.deleted_rows, report.complete) == (free_rows, True)
    assert report.batches <= 20 + 2 * free_rows / 200
    assert adapter.sweep_expired(batch_rows=200).deleted_rows == held_rows


@pytest.mark.parametrize("batch_rows", [200, FOUND_ROWS + 1])
def test_all_entries_of_one_instant_are_swept_even_if_a_search_finds_fewer(
    adapter: KeyValueStoreAdapter, connection: psycopg.Connection[Any], batch_rows: int
) -> None:
    add_expired(connection, adapter, 3 * FOUND_ROWS, at_once=True)
    assert adapter.sweep_expired(batch_rows=batch_rows).deleted_rows == 3 * FOUND_ROWS


def test_a_batch_touches_few_namespaces(adapter: KeyValueStoreAdapter, connection: psycopg.Connection[Any]) -> None:
    add_expired(connection, adapter, 12)
    params = {"batch_rows": 4, "found_rows": 12, "after": None}
    found = connection.execute(STATEMENTS["find_expired"], params).fetchall()
    assert [rows for _, _, rows, _ in found] == [12, 12, 12]
    for tables, places, _, _ in found:
        namespaces = connection.execute(
            "SELECT DISTINCT namespace FROM kv_entries"
            " WHERE (tableoid, ctid) IN (SELECT * FROM unnest(%s::oid[], %s::tid[]))",
            (tables, places),
        )
        assert len(namespaces.fetchall()) == 1


@pytest.mark.parametrize("change", ["rewritten", "replaced"])
def test_an_entry_that_was_renewed_after_the_search_stays(
    adapter: KeyValueStoreAdapter, connection: psycopg.Connection[Any], change: str
) -> None:
    add_expired(connection, adapter, 6)
    params = {"batch_rows": 10, "found_rows": 10, "after": None}
    [(tables, places, _, _)] = connection.execute(STATEMENTS["find_expired"], params).fetchall()
    if change == "rewritten":
        for key in range(1, 7):
            adapter.set(f"namespace {key % 3}", str(key), "new", ttl_seconds=600)
    else:
        connection.execute("DELETE FROM kv_entries")
        connection.execute("VACUUM kv_entries")
        for key in range(1, 7):
            adapter.set(f"namespace {key % 3}", str(-key), "new")
        same_places = connection.execute(
            "SELECT count(*) FROM kv_entries WHERE ctid = ANY (%s::tid[])", (places,)
        ).fetchone()
        assert same_places == (6,)
    batch = {"tables": tables, "places": places}
    assert connection.execute(STATEMENTS["sweep_batch"], batch).fetchone() == (0, 0)
    assert len(keys(connection)) == 6


@pytest.mark.parametrize("style", ["German", "SQL, DMY", "Postgres, MDY"])
def test_a_sweep_works_with_any_date_style(
    postgres_url: str, adapter: KeyValueStoreAdapter, connection: psycopg.Connection[Any], style: str
) -> None:
    add_expired(connection, adapter, FOUND_ROWS + 1)
    connection.execute(
        "INSERT INTO kv_operations_0004 SELECT 'n', i, '', '', now() - interval '1 day' FROM generate_series(1, 5) i"
    )
    connection.execute(sql.SQL("ALTER DATABASE {} SET DateStyle = {}").format(database(connection), style))
    with create_kv_store_adapter("postgres", {"url": postgres_url}) as styled:
        assert styled.sweep_expired().deleted_rows == FOUND_ROWS + 1
        assert styled.prune_operations(batch_rows=2).deleted_rows == 5


@pytest.mark.parametrize("expiry", ["-infinity", "4000-01-01 BC", "0001-01-01"])
def test_an_expiry_that_python_has_no_datetime_for_is_swept(
    adapter: KeyValueStoreAdapter, connection: psycopg.Connection[Any], expiry: str
) -> None:
    add_expired(connection, adapter, FOUND_ROWS + 1, at_once=True)
    connection.execute("UPDATE kv_entries SET expires_at = %s", (expiry,))
    assert adapter.sweep_expired().deleted_rows == FOUND_ROWS + 1


def database(connection: psycopg.Connection[Any]) -> sql.Identifier:
    return sql.Identifier(connection.info.dbname)
