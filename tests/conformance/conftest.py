from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import PostgresServer


@pytest.fixture(scope="session")
def _shared_database(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.create_database()
    yield name
    postgres_server.drop_database(name)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, _shared_database: str) -> str:
    """Return one database for all cases, emptied before each. Creating a database takes longer than most cases."""
    postgres_server.execute(
        "DELETE FROM kv_entries; DELETE FROM kv_ledgers; DELETE FROM kv_operations", _shared_database
    )
    return postgres_server.url(_shared_database)
