"""Any sequence of operations gives the same results as a dict."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from kvworker.adapters import create_kv_store_adapter
from kvworker.adapters.contract import KeyValueStoreAdapter
from tests.conformance.store_machine import QUOTA_BYTES, StoreMachine
from tests.support.servers import PostgresServer

_EXAMPLES = settings(
    max_examples=40,
    stateful_step_count=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("tables", ["postgres_url", "partitioned_postgres_url"])
def test_postgres_behaves_like_a_dict(
    postgres_server: PostgresServer, tables: str, request: pytest.FixtureRequest
) -> None:
    url: str = request.getfixturevalue(tables)
    database = url.partition("?")[0].rpartition("/")[2]

    class PostgresMachine(StoreMachine):
        def make_adapter(self) -> KeyValueStoreAdapter:
            postgres_server.execute("TRUNCATE kv_entries, kv_ledgers, kv_records", database)
            return create_kv_store_adapter("postgres", {"url": url, "namespace_quota_bytes": QUOTA_BYTES})

    # Few examples do for partitions, which change only how rows are named.
    few = settings(_EXAMPLES, max_examples=15)
    run_state_machine_as_test(PostgresMachine, settings=few if tables == "partitioned_postgres_url" else _EXAMPLES)


def test_sqlite_behaves_like_a_dict(tmp_path: Path) -> None:
    class SqliteMachine(StoreMachine):
        def make_adapter(self) -> KeyValueStoreAdapter:
            StoreMachine.numbers += 1
            url = f"sqlite:///{tmp_path}/{StoreMachine.numbers}.sqlite"
            config = {"url": url, "migrate_on_start": True, "namespace_quota_bytes": QUOTA_BYTES}
            return create_kv_store_adapter("sqlite", config)

    run_state_machine_as_test(SqliteMachine, settings=_EXAMPLES)
