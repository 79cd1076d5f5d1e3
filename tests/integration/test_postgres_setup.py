"""A PostgreSQL that is set up in an unusual or a wrong way."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from kvworker.adapters import create_kv_store_adapter
from kvworker.errors import ConfigurationError, GlobalQuotaExceededError, NamespaceQuotaExceededError


def test_a_search_path_without_an_existing_schema_is_named(empty_postgres_url: str) -> None:
    """``kvworker migrate`` must not answer that one should run ``kvworker migrate``."""
    url = make_url(empty_postgres_url).update_query_dict({"options": "-csearch_path=missing"}).render_as_string()
    adapter = create_kv_store_adapter("postgres", {"url": url})
    with adapter, pytest.raises(ConfigurationError, match=r"search_path .*CREATE SCHEMA"):
        adapter.migrate()


@pytest.mark.parametrize(
    ("quota", "error"),
    [("namespace_quota", NamespaceQuotaExceededError), ("global_quota", GlobalQuotaExceededError)],
)
def test_a_quota_refusal_whose_constraint_only_the_message_names(
    postgres_url: str, connection: psycopg.Connection[Any], quota: str, error: type[Exception]
) -> None:
    """Citus passes the message of a shard's CHECK violation on, but not the field ``constraint_name``."""
    with create_kv_store_adapter("postgres", {"url": postgres_url, "global_quota_bytes": 1000}) as adapter:
        adapter.set("n", "k", 1)
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING"
            " ERRCODE = 'check_violation', MESSAGE = 'new row for relation \"kv_ledgers_102008\" violates check"
            f' constraint "kv_ledgers_{quota}"\'; END $$'
        )
        connection.execute("CREATE TRIGGER refuse BEFORE UPDATE ON kv_ledgers FOR EACH ROW EXECUTE FUNCTION refuse()")
        with pytest.raises(error):
            adapter.set("n", "k", "larger")
        assert adapter.get("n", "k").value == 1
