from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import PostgresServer


@pytest.fixture(scope="session")
def _shared_database(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.temporary_database() as name:
        yield name


@pytest.fixture(scope="session")
def _partitioned_database(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.temporary_database(partitioned=True) as name:
        yield name


@pytest.fixture
def partitioned_postgres_url(postgres_server: PostgresServer, _partitioned_database: str) -> str:
    """Return one database whose tables are partitioned by namespace, emptied before each case."""
    return _emptied(postgres_server, _partitioned_database)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, _shared_database: str) -> str:
    """Return one database for all cases, emptied before each. Creating a database takes longer than most cases."""
    return _emptied(postgres_server, _shared_database)


def _emptied(server: PostgresServer, database: str) -> str:
    server.execute(
        "DELETE FROM kv_entries; DELETE FROM kv_ledgers; DELETE FROM kv_records; UPDATE kv_totals SET total = 0",
        database,
    )
    return server.url(database)
