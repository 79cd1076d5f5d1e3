"""The operators' view of queues, workers and stores, whatever part of it is frozen."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping

import pytest

from kvworker import KeyValueStore, Settings
from kvworker.__version__ import __version__
from kvworker.errors import KVStoreError, NamespaceQuotaExceededError
from kvworker.ops.overview.collector import STORE_PARTS, Overview, OverviewCollector
from tests.support.command_line import clean_environ
from tests.support.processes import ValkeyNode, WorkerNode, wait_until
from tests.support.servers import PostgresServer


@pytest.fixture
def collector(settings: Settings) -> Iterator[OverviewCollector]:
    with contextlib.closing(OverviewCollector(settings)) as collector:
        yield collector


def eventually(collector: OverviewCollector, condition: Callable[[Overview], object], what: str) -> Overview:
    """Collect until the condition holds, and return that overview."""
    found: list[Overview] = []

    def holds() -> object:
        found.append(collector.collect())
        return condition(found[-1])

    wait_until(holds, timeout_seconds=60, what=what)
    return found[-1]


def stats(environ: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kvworker", "stats", *options]
    env = {**clean_environ(), **environ}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=env)


def test_a_frozen_worker_shows_in_queue_and_workers(
    store: KeyValueStore, worker_node: WorkerNode, collector: OverviewCollector, kv_environ: Mapping[str, str]
) -> None:
    store.set("n", "k", "x" * 1000, ttl_seconds=300)
    ran = stats(kv_environ)
    assert (ran.returncode, ran.stderr) == (0, "")
    for text in ("kv.maintenance", "prefork", __version__, "ready", "0.1%", "1 within 1 h", "kv_entries"):
        assert text in ran.stdout
    assert collector.collect().workers.value is not None
    with pytest.raises(NamespaceQuotaExceededError):
        store.set("n", "k", "x" * 2_000_000)
    workers = collector.collect().workers.value
    assert workers is not None
    assert workers.recent is not None
    assert (workers.recent.operations, workers.since_start.operations) == (1, 2)
    assert workers.recent.reasons() == {("refused", "namespace_quota"): 1}
    assert workers.recent.quantile("execution_seconds", 0.5) is not None
    worker_node.kill("SIGSTOP")
    for _ in range(3):
        with contextlib.suppress(KVStoreError):
            store.get("n", "k", timeout=0.3)

    def shows_it(overview: Overview) -> bool:
        queues, workers = overview.queues.value, overview.workers.value
        # Redis has handed one of the messages to the worker, which did not record it.
        is_queued = queues is not None and queues.queues[0].depth >= 2
        return is_queued and workers is not None and (workers.fleet.silent_count, workers.fleet.answers) == (1, ())

    frozen = eventually(collector, shows_it, "the frozen worker")
    assert frozen.queues.value is not None
    first = frozen.queues.value.queues[0].oldest_seconds
    assert first is not None
    assert first > 0

    def is_older(overview: Overview) -> bool:
        oldest = overview.queues.value.queues[0].oldest_seconds if overview.queues.value else None
        return oldest is not None and oldest > first

    eventually(collector, is_older, "a message that gets older")
    assert "1 worker connected to the broker without an answer" in stats(kv_environ).stdout
    worker_node.kill("SIGCONT")
    eventually(collector, lambda seen: seen.workers.value and seen.workers.value.fleet.answers, "its answer")


def test_a_frozen_server_hides_nothing_but_itself(
    store: KeyValueStore,
    worker_node: WorkerNode,
    valkey_node: ValkeyNode,
    collector: OverviewCollector,
    postgres_server: PostgresServer,
    kv_environ: Mapping[str, str],
) -> None:
    store.set("n", "k", 1)
    assert collector.collect().problems() == {}
    postgres_server.freeze()
    try:
        overview = eventually(collector, lambda seen: seen.queues.value is not None, "the queues")
        assert set(overview.problems()) == {f"postgres: {part}" for part in STORE_PARTS}
        ran = stats(kv_environ, "--json")
    finally:
        postgres_server.resume()
    shown = json.loads(ran.stdout)
    assert ran.returncode == 1
    assert shown["queues"]["queues"][0]["depth"] == 0
    assert shown["stores"]["postgres"]["total"] is None
    assert set(shown["problems"]) == {f"postgres: {part}" for part in STORE_PARTS}

    eventually(collector, lambda seen: not seen.problems(), "the database's return")
    valkey_node.kill("SIGSTOP")
    overview = collector.collect()
    assert set(overview.problems()) == {"queues", "workers"}
    assert overview.stores["postgres"].total.value is not None
    valkey_node.kill("SIGCONT")
    eventually(collector, lambda seen: not seen.problems(), "the broker's return")


def test_watch_prints_one_document_on_each_line(worker_node: WorkerNode, kv_environ: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "kvworker", "stats", "--watch", "--json", "--interval", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**clean_environ(), **kv_environ}) as process:
        assert process.stdout is not None
        documents = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.terminate()
        process.stdout.read()
        assert process.wait(60) in {143, -signal.SIGTERM}
    assert documents[0]["taken_at"] < documents[1]["taken_at"]
    assert documents[0]["workers"]["answers"][0]["pool"] == "prefork"
