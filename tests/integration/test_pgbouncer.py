"""PostgreSQL behind PgBouncer in transaction mode. Runs only if a ``pgbouncer`` is installed."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy.engine import make_url

from kvworker.adapters import create_kv_store_adapter
from kvworker.errors import ConfigurationError, NamespaceQuotaExceededError
from kvworker.model import Step
from kvworker.testing.apply_many import make_operation
from tests.support.pgbouncer import BINARY, pgbouncer_url, running_pgbouncer
from tests.support.servers import PostgresServer

pytestmark = pytest.mark.skipif(BINARY is None, reason="no pgbouncer is installed on this machine")


@pytest.fixture(scope="module")
def port(postgres_server: PostgresServer) -> Iterator[int]:
    with running_pgbouncer(postgres_server) as port:
        yield port


@pytest.fixture
def database(postgres_url: str) -> str:
    return str(make_url(postgres_url).database)


def test_the_adapter_works_without_prepared_statements(port: int, database: str, postgres_url: str) -> None:
    """It also does so under settings of the database that it can change only on its own connection."""
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        for setting in ("array_nulls = off", "extra_float_digits = -15", "client_encoding = LATIN1"):
            connection.execute(f"ALTER DATABASE {database} SET {setting}")
    config = {"url": pgbouncer_url(port, database), "prepare_threshold": None, "namespace_quota_bytes": 1000}
    with create_kv_store_adapter("postgres", config) as adapter:
        adapter.migrate()
        adapter.set("n", "\u4f60\u597d", "\U0001f600", ttl_seconds=3600)
        found = adapter.get("n", "\u4f60\u597d")
        assert (found.value, round(found.ttl_seconds or 0)) == ("\U0001f600", 3600)
        adapter.batch("n", [Step("set", "new", 1), Step("increment", "counter")])
        assert None not in adapter.apply_many([make_operation("increment", "counter"), make_operation("get", "new")])
        with pytest.raises(NamespaceQuotaExceededError):
            adapter.set("n", "large", "x" * 2000)
        assert adapter.recompute_ledgers().drifts == ()


@pytest.mark.parametrize(
    ("query", "config"),
    [({}, {}), ({"options": "-csearch_path=public"}, {"prepare_threshold": None})],
    ids=["prepared statements", "options in the url"],
)
def test_a_parameter_that_pgbouncer_refuses_is_an_error_that_says_what_to_set(
    port: int, database: str, query: dict[str, str], config: dict[str, None]
) -> None:
    with create_kv_store_adapter("postgres", {"url": pgbouncer_url(port, database, **query), **config}) as adapter:
        for use in (adapter.usage, adapter.migrate):
            with pytest.raises(ConfigurationError, match=r"prepare_threshold: null, remove options .*: options"):
                use()
