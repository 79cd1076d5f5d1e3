"""The cost of late messages: a worker's processor time for each, against that for a message in time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import psutil
from redis import Redis

from benchmarks.rows import Row
from benchmarks.workers import NAMESPACE, POOLS, benched_store, running_workers
from kvworker import KeyValueStore
from kvworker.client.sync import QueuedResult

MESSAGES = 3000
LATE_SECONDS = 1.0
DRAIN_SECONDS = 120.0


def run(postgres_url: str, valkey_url: str, *, rounds: int, quick: bool) -> Iterator[Row]:
    """Measure every pool, and yield a row for each."""
    messages = MESSAGES // 5 if quick else MESSAGES
    with benched_store(postgres_url, valkey_url, max_calls_in_flight=MESSAGES) as store:
        for pool, concurrency in POOLS:
            with running_workers(store, pool, concurrency) as (_, worker):
                process = psutil.Process(worker.process.pid)
                samples = [
                    (_cost(store, process, messages, LATE_SECONDS), _cost(store, process, messages, DRAIN_SECONDS))
                    for _ in range(rounds)
                ]
            yield {
                "name": f"late message, {pool} -c {concurrency}",
                "unit": "ms of the worker's processor",
                "median": statistics.median(late for late, _ in samples),
                "floor": "get in time",
                "floor_median": statistics.median(live for _, live in samples),
                "ratio": statistics.median(late / live for late, live in samples),
            }


def _cost(store: KeyValueStore, worker: psutil.Process, messages: int, timeout: float) -> float:
    """Queue messages while the worker is stopped, and measure what it spends on each."""
    family = [worker, *worker.children(recursive=True)]
    for process in family:
        process.suspend()
    pending = [
        store.submit("kv_get", {"namespace": NAMESPACE, "key": "key-0"}, timeout=timeout) for _ in range(messages)
    ]
    if timeout == LATE_SECONDS:
        time.sleep(LATE_SECONDS)
    before = _processor_seconds(family)
    for process in family:
        process.resume()
    _wait_until_drained(store, pending)
    return (_processor_seconds(family) - before) / messages * 1000


def _wait_until_drained(store: KeyValueStore, pending: list[QueuedResult]) -> None:
    # Answers that are read meanwhile would cost the caller's processor time only.
    with Redis.from_url(store.settings.queue.broker_url) as broker:
        give_up_at = time.monotonic() + DRAIN_SECONDS
        while broker.llen(store.settings.queue.queue_name) or broker.hlen("kvworker.unacked"):
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{len(pending)} messages were not drained in time")
            time.sleep(0.01)


def _processor_seconds(family: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in family)
