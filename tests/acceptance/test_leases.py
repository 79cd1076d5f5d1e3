"""Leases through the queue: holders that die or freeze, and waiters of every kind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from kvworker import AsyncKeyValueStore, KeyValueStore, LeaseHeldError, Settings
from kvworker.durable import grants
from kvworker.durable.grants import Acquisition
from tests.support.forked import context
from tests.support.lease_holder import hold
from tests.support.processes import ValkeyNode, WorkerNode, wait_until

HOLDER_TTL_SECONDS = 3.0


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=4"]


@contextmanager
def holder(config: Path) -> Iterator[tuple[BaseProcess, Connection]]:
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(config, HOLDER_TTL_SECONDS, there))
    process.start()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()


def test_a_killed_or_frozen_holder_loses_its_lease(
    store: KeyValueStore, kv_config: Path, worker_node: WorkerNode
) -> None:
    assert worker_node.status == "running"
    with holder(kv_config) as (process, pipe):
        assert pipe.poll(60)
        tokens = [pipe.recv()]
        process.kill()
        with store.lease("locks", "job", wait_seconds=60) as lease:
            tokens.append(lease.token)
    with holder(kv_config) as (process, pipe):
        assert pipe.poll(60)
        tokens.append(pipe.recv())
        assert process.pid
        os.kill(process.pid, signal.SIGSTOP)
        with store.lease("locks", "job", wait_seconds=60) as lease:
            tokens.append(lease.token)
            pipe.send("go on")
            os.kill(process.pid, signal.SIGCONT)
            assert pipe.poll(60)
            assert pipe.recv() == (True, False, False)
            lease.renew()
    assert tokens == sorted(set(tokens))


def test_coroutines_wait_and_a_cancelled_one_leaves_no_lease(settings: Settings, worker_node: WorkerNode) -> None:
    assert worker_node.status == "running"

    async def check() -> None:
        async with AsyncKeyValueStore(settings) as store:
            async with store.lease("locks", "job") as lease:
                waiters = [asyncio.create_task(store.lease("locks", "job", wait_seconds=60).acquire()) for _ in "ab"]
                with pytest.raises(LeaseHeldError):
                    await store.lease("locks", "job").acquire()
                waiters[0].cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiters[0]
                await lease.renew()
            following = await waiters[1]
            assert await following.release()
            # Cancelled at any point of its attempt.
            for delay in range(20):
                attempt = asyncio.create_task(store.lease("locks", "job", ttl_seconds=600).acquire())
                await asyncio.sleep(delay / 1000)
                attempt.cancel()
                try:
                    await (await attempt).release()
                except asyncio.CancelledError:
                    async with store.lease("locks", "job", wait_seconds=60):
                        pass
            permits = [store.semaphore("locks", "pool", 2, ttl_seconds=600, auto_renew=True) for _ in range(2)]
            async with permits[0], permits[1]:
                with pytest.raises(LeaseHeldError):
                    await store.semaphore("locks", "pool", 2).acquire()
            assert (await store.list_keys("locks")).entries == ()

    asyncio.run(check())


def test_waiters_are_woken_also_after_a_lost_connection(
    store: KeyValueStore,
    settings: Settings,
    worker_node: WorkerNode,
    valkey_node: ValkeyNode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert worker_node.status == "running"
    # Only a wake-up can end their pauses.
    monkeypatch.setattr(grants, "_MAX_WOKEN_PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(grants, "_MAX_PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(Acquisition, "_next_pause", lambda _, longest: longest)

    def wait_for_lease() -> int:
        with store.lease("locks", "woken", ttl_seconds=3600, wait_seconds=3600) as lease:
            return lease.token

    async def wait_in_a_coroutine() -> int:
        async with (
            AsyncKeyValueStore(settings) as other,
            other.lease("locks", "woken", ttl_seconds=3600, wait_seconds=3600) as lease,
        ):
            return lease.token

    with valkey_node.client() as client, ThreadPoolExecutor(3) as threads:
        for _ in range(2):
            with store.lease("locks", "woken", ttl_seconds=3600) as lease:
                waiters = [threads.submit(wait_for_lease) for _ in "ab"]
                waiters.append(threads.submit(asyncio.run, wait_in_a_coroutine()))
                wait_until(lambda: client.pubsub_numpat() >= 4, timeout_seconds=60, what="the subscriptions")
                client.client_kill_filter(_type="pubsub")
                wait_until(lambda: client.pubsub_numpat() >= 4, timeout_seconds=60, what="the subscriptions again")
                first = lease.token
            assert sorted(waiter.result(120) > first for waiter in waiters) == [True] * 3


def test_many_waiters_take_turns(settings: Settings, worker_node: WorkerNode) -> None:
    assert worker_node.status == "running"
    order: list[int] = []

    def work(store: KeyValueStore) -> None:
        with store.lease("locks", "turns", wait_seconds=120) as lease:
            order.append(lease.token)

    with KeyValueStore(settings) as first, KeyValueStore(settings) as second, ThreadPoolExecutor(8) as threads:
        list(threads.map(work, [first, second] * 8))
        assert order == sorted(set(order))
        assert len(order) == 16
        wait_until(lambda: not first.get("locks", "turns").found, timeout_seconds=60, what="the last release")
