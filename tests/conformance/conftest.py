from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import PostgresServer


@pytest.fixture(scope="session")
def _shared_database(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.create_database()
    yield name
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, _shared_database: str) -> str:
    """One database for all cases, emptied before each: making a database takes longer than most cases."""
    for table in ("kv_entries", "kv_ledgers", "kv_operations"):
        postgres_server.execute(f"DELETE FROM {table}", _shared_database)
    return postgres_server.url(_shared_database)
