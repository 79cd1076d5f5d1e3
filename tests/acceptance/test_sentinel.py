"""Broker and results behind Sentinel, with real workers: they follow the primary, and every count stays exact.

Debian's ``redis-sentinel`` watches the servers where it is installed, and Valkey's own Sentinel elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from kvworker import KeyValueStore, KVStoreError, QueueUnavailableError, Settings
from kvworker.client.transport.message import failed_before_write
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.redis_connections import exchange
from kvworker.ops.doctor import run_checks
from tests.acceptance.conftest import POOLS, ROOT, write_config
from tests.support.database import locked_entry, waits_for_lock
from tests.support.elapsed import finishes_within
from tests.support.processes import WorkerNode, wait_until
from tests.support.sentinel import DOWN_SECONDS, PASSWORD, SENTINEL_PASSWORD, WatchedServers, watched_servers
from tests.support.servers import PostgresServer

pytestmark = pytest.mark.timeout(300)

#: For the Sentinel to choose another primary, and for every process to find it.
BOUND_SECONDS = DOWN_SECONDS + 12.0
#: Sentinel demotes an old primary after 8 s. Until then, a caller and a worker could use different ones.
FOLLOW_SECONDS = 6.0
WRITERS = 4


@pytest.fixture(scope="module")
def servers() -> Iterator[WatchedServers]:
    with watched_servers() as servers:
        yield servers


@pytest.fixture(scope="module")
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="module")
def config(servers: WatchedServers, database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    queue = {"visibility_timeout_seconds": 5, "retry_seconds": 4.0}
    budgets = dict.fromkeys(("sweep_budget_seconds", "recompute_budget_seconds", "prune_budget_seconds"), 2.0)
    directory = tmp_path_factory.mktemp("config")
    return write_config(directory, database_url, servers.url(), servers.url(), {"queue": queue, "maintenance": budgets})


@pytest.fixture(scope="module")
def workers(config: Path) -> Iterator[list[WorkerNode]]:
    """One worker with child processes and one with threads."""
    environ = {"KVWORKER_CONFIG": str(config), "PYTHONPATH": str(ROOT)}
    nodes = [WorkerNode(config.parent, environ, pool, name=pool[0].partition("=")[2]) for pool in POOLS]
    for node in nodes:
        node.start()
    assert all(node.ready() for node in nodes)
    yield nodes
    for node in nodes:
        node.teardown()


@pytest.fixture
def store(config: Path) -> Iterator[KeyValueStore]:
    with KeyValueStore.from_config(config) as store:
        yield store


class Writer:
    """Increments its own counter, each time with another operation id."""

    def __init__(self, store: KeyValueStore, key: str, stop: threading.Event) -> None:
        self.key = key
        self.values: list[int] = []
        self._store = store
        self._stop = stop

    def run(self) -> None:
        """Write until stopped. A call that fails ends the test."""
        while not self._stop.wait(0.02):
            self.values.append(self._store.increment("load", self.key, timeout=90).value)


@contextmanager
def load(store: KeyValueStore, name: str) -> Iterator[list[Writer]]:
    """Keep writing within the block, then check that each increment was applied once."""
    stop = threading.Event()
    writers = [Writer(store, f"{name}-{number}", stop) for number in range(WRITERS)]
    with ThreadPoolExecutor(WRITERS) as threads:
        running = [threads.submit(writer.run) for writer in writers]
        try:
            wait_for_progress(writers, 5)
            yield writers
        finally:
            stop.set()
    for each in running:
        each.result()
    for writer in writers:
        assert writer.values == list(range(1, len(writer.values) + 1))
        assert store.get("load", writer.key, timeout=60).value == len(writer.values)


def wait_for_progress(writers: list[Writer], count: int) -> None:
    """Wait until each writer has written a few times more."""
    before = [len(writer.values) for writer in writers]
    wait_until(
        lambda: all(len(writer.values) >= done + count for writer, done in zip(writers, before, strict=True)),
        timeout_seconds=80,
        what="every writer writing",
    )


@pytest.mark.parametrize("fault", ["killed", "frozen", "switched"])
def test_a_fail_over_under_load(
    servers: WatchedServers, workers: list[WorkerNode], store: KeyValueStore, config: Path, fault: str
) -> None:
    old = servers.primary()
    with load(store, fault) as writers:
        if fault == "switched":
            servers.switch()
        else:
            old.kill("SIGKILL" if fault == "killed" else "SIGSTOP")
        with finishes_within(BOUND_SECONDS):
            wait_until(lambda: servers.primary() is not old, timeout_seconds=60, what="the fail-over")
            with finishes_within(FOLLOW_SECONDS), KeyValueStore.from_config(config) as caller:
                assert caller.increment("load", fault, timeout=90).value == 1
            wait_for_progress(writers, 5)
        if fault == "frozen":
            old.kill("SIGCONT")  # It still believes that it is the primary.
            wait_for_progress(writers, 5)
    servers.replace(old)
    findings = list(run_checks(Settings.load(config)))
    assert all(finding.ok for finding in findings), findings
    assert sum(finding.name == "worker" for finding in findings) == 1 + len(workers), findings
    logs = "".join(worker.logs() for worker in workers)
    assert PASSWORD not in logs + str(findings)
    assert SENTINEL_PASSWORD not in logs + str(findings)
    assert [worker.status for worker in workers] == ["running"] * len(workers), logs


def test_a_primary_that_turns_into_a_replica(
    servers: WatchedServers, workers: list[WorkerNode], store: KeyValueStore, config: Path
) -> None:
    """Sentinel does not know it yet. Every write is refused, which counts as a lost connection."""
    primary, replica = servers.primary(), servers.replica()
    backend = make_celery(Settings.load(config)).backend
    connection = backend.connections.acquire()
    with primary.client() as client:
        client.replicaof("127.0.0.1", replica.port)
        with pytest.raises(RedisConnectionError, match="is a replica now") as caught:
            exchange(connection, connection.pack_commands([("SET", "x", 1)]), replies=1)
        assert isinstance(caught.value.__cause__, ReadOnlyError)
        assert failed_before_write(caught.value)
        assert connection._sock is None
        with pytest.raises(QueueUnavailableError):
            store.increment("n", "replica", timeout=1.0, idempotency_key="only-once")
        client.replicaof("NO", "ONE")
    with finishes_within(BOUND_SECONDS):
        assert store.increment("n", "replica", timeout=90, idempotency_key="only-once").value == 1
    assert [worker.status for worker in workers] == ["running"] * len(workers)


def test_an_unacknowledged_message_is_delivered_again_after_a_fail_over(
    servers: WatchedServers, workers: list[WorkerNode], store: KeyValueStore, config: Path, database_url: str
) -> None:
    """Worker and primary are killed, and the caller is gone: only the record on the replica still has the message."""
    store.set("n", "c", 10, timeout=60)
    old, replica = servers.primary(), servers.replica()
    with locked_entry(database_url, "c") as blocker:
        with KeyValueStore.from_config(config) as caller:
            caller.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=200)
            wait_until(lambda: waits_for_lock(blocker), what="the operation reaching the database")
        with replica.client() as client:
            client.select(1)
            wait_until(lambda: client.hlen("kvworker.unacked") == 1, what="the replicated record")
        for worker in workers:
            worker.teardown()
        old.kill()
        # The statement would otherwise go on without its worker.
        blocker.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        blocker.rollback()
    wait_until(lambda: servers.primary() is not old, timeout_seconds=60, what="the fail-over")
    workers[1].start()
    wait_until(lambda: store.get("n", "c", timeout=60).value == 11, timeout_seconds=60, what="the redelivery")
    with servers.primary().client() as client:
        client.select(1)
        wait_until(lambda: client.hlen("kvworker.unacked") == 0, timeout_seconds=60, what="the acknowledgement")
    assert store.get("n", "c", timeout=60).value == 11


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"master_name": "other"}, "know no primary named 'other'; correct master_name"),
        ({"sentinel_password": "wrong-password"}, "refuse sentinel_username or sentinel_password of the URL"),
    ],
    ids=["name", "password"],
)
def test_a_url_that_sentinel_refuses(servers: WatchedServers, parameters: dict[str, str], reason: str) -> None:
    settings = Settings.from_mapping({"queue": {"broker_url": servers.url(**parameters)}})
    findings = list(run_checks(settings, ("broker", "results")))
    with KeyValueStore(settings) as store, pytest.raises(KVStoreError) as caught:
        store.get("n", "k", timeout=1)
    shown = [str(caught.value), *(finding.detail for finding in findings)]
    assert all(reason in text for text in shown), shown
    assert "start" not in " ".join([*shown, *(finding.fix for finding in findings)])
    assert not [text for text in shown if PASSWORD in text or "wrong-password" in text]


def test_calls_go_on_while_no_sentinel_answers(
    servers: WatchedServers, workers: list[WorkerNode], store: KeyValueStore
) -> None:
    assert workers[1].status == "running"
    store.set("n", "k", 0, timeout=60)
    servers.sentinel.kill()
    for count in range(1, 5):
        assert store.increment("n", "k", timeout=60).value == count
