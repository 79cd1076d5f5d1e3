"""A primary fails under load and its synchronous standby is promoted: nothing that was acknowledged is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.adapters.sql.record_ids import record_id
from kvworker.errors import StoreUnavailableError
from tests.support.elapsed import finishes_within
from tests.support.processes import wait_until
from tests.support.replication import ReplicatedPostgres, replicated_postgres

STATEMENT_TIMEOUT_SECONDS = 2.0
#: A frozen server is given up a second after the statement's limit.
BOUND_SECONDS = STATEMENT_TIMEOUT_SECONDS + 1.0
#: For connecting, and for Python.
GRACE_SECONDS = 3.0
WRITERS = 4


class Writer:
    """Increments its own counter, and repeats each increment until it is acknowledged."""

    def __init__(self, adapter: KeyValueStoreAdapter, number: int, stop: threading.Event) -> None:
        self.key = f"counter-{number}"
        self.acknowledged: list[str] = []
        self._adapter = adapter
        self._stop = stop

    def run(self) -> None:
        """Write until stopped."""
        while not self._stop.is_set():
            operation_id = f"{self.key}-{len(self.acknowledged)}"
            try:
                self._adapter.increment("n", self.key, operation_id=operation_id)
            except StoreUnavailableError:
                continue
            self.acknowledged.append(operation_id)


@pytest.fixture
def servers() -> Iterator[ReplicatedPostgres]:
    with replicated_postgres() as servers:
        yield servers


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_promotion_under_load(servers: ReplicatedPostgres, fault: str) -> None:
    stop = threading.Event()
    config = {"url": servers.url, "statement_timeout_seconds": STATEMENT_TIMEOUT_SECONDS, "migrate_on_start": True}
    with create_kv_store_adapter("postgres", config) as adapter, ThreadPoolExecutor(WRITERS) as threads:
        adapter.set("n", "first", 1)
        writers = [Writer(adapter, number, stop) for number in range(WRITERS)]
        running = [threads.submit(writer.run) for writer in writers]
        try:
            wait_until(lambda: all(len(writer.acknowledged) > 20 for writer in writers), what="a load")
            if fault == "killed":
                servers.primary.kill()
            else:
                servers.primary.freeze()
            servers.standby.promote()
            before = [len(writer.acknowledged) for writer in writers]
            with finishes_within(BOUND_SECONDS + GRACE_SECONDS):
                wait_until(
                    lambda: all(len(w.acknowledged) > count for w, count in zip(writers, before, strict=True)),
                    what="every writer writing again",
                )
        finally:
            stop.set()
            servers.primary.kill()
        for each in running:
            each.result(timeout=60)
        _check(servers, writers)
        assert adapter.recompute_ledgers().drifts == ()


def _check(servers: ReplicatedPostgres, writers: list[Writer]) -> None:
    with servers.standby.connect() as connection:
        records = {row[0] for row in connection.execute("SELECT id FROM kv_records").fetchall()}
        values: dict[str, str] = dict(connection.execute("SELECT key, value FROM kv_entries").fetchall())
    for writer in writers:
        assert {record_id(acknowledged) for acknowledged in writer.acknowledged} <= records
        # The last increment may have been applied without an acknowledgement.
        assert int(values[writer.key]) - len(writer.acknowledged) in {0, 1}
