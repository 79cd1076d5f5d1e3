"""Effects through the queue: holders that die or freeze, callers in several processes, and coroutines."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from kvworker import (
    AsyncKeyValueStore,
    EffectUnknownError,
    KeyValueStore,
    Settings,
    StepConflictError,
    StepInProgressError,
    StepLostError,
)
from kvworker.durable import UnknownStep, done
from tests.support.forked import context
from tests.support.once_callers import charge_and_wait, charge_slowly
from tests.support.processes import WorkerNode, wait_until


@pytest.fixture
def worker_arguments() -> list[str]:
    return ["--pool=threads", "--concurrency=4"]


@contextmanager
def caller(
    target: Callable[[Path, Path, Connection], None], config: Path, effects: Path
) -> Iterator[tuple[BaseProcess, Connection]]:
    here, there = context.Pipe()
    process = context.Process(target=target, args=(config, effects, there))
    process.start()
    try:
        yield process, here
    finally:
        process.kill()
        process.join()


def told(pipe: Connection) -> object:
    assert pipe.poll(120)
    return pipe.recv()


def state(store: KeyValueStore) -> str:
    return store.step_status("charges", "o-17").state


def test_a_holder_that_dies_or_freezes_leaves_its_effect_unknown(
    store: KeyValueStore, kv_config: Path, worker_node: WorkerNode, tmp_path: Path
) -> None:
    assert worker_node.status == "running"
    effects = tmp_path / "effects"

    @store.once("charges", key=lambda order: order)
    def charge(order: str) -> str:
        pytest.fail(f"{order} must not be charged again")

    with caller(charge_and_wait, kv_config, effects) as (process, pipe):
        assert told(pipe) == "charged"
        process.kill()
        # The second error comes only on a machine that takes longer than the lease for this call.
        with pytest.raises((StepInProgressError, EffectUnknownError)):
            charge("o-17")
        wait_until(lambda: state(store) == "unknown", timeout_seconds=60, what="the end of the lease")
        with pytest.raises(EffectUnknownError):
            charge("o-17")

    def look(step: UnknownStep) -> object:
        assert step.token > step.lost_token
        return done(f"found {effects.read_text().strip()}")

    settling = store.once("charges", key=lambda order: order, on_unknown=look)(charge.__wrapped__)  # type: ignore[attr-defined]
    assert settling("o-17") == charge("o-17") == "found o-17"
    store.delete("charges", "o-17")
    with caller(charge_and_wait, kv_config, effects) as (process, pipe):
        assert told(pipe) == "charged"
        assert process.pid
        os.kill(process.pid, signal.SIGSTOP)
        wait_until(lambda: state(store) == "unknown", timeout_seconds=60, what="the end of the frozen holder's lease")
        assert settling("o-17") == "found o-17\no-17"
        pipe.send("go on")
        os.kill(process.pid, signal.SIGCONT)
        assert told(pipe) == "StepLostError"
    assert charge("o-17") == "found o-17\no-17", "the late result was refused"


def test_two_processes_and_a_coroutine_perform_it_once(
    settings: Settings, kv_config: Path, worker_node: WorkerNode, tmp_path: Path
) -> None:
    assert worker_node.status == "running"
    effects = tmp_path / "effects"
    with (
        caller(charge_slowly, kv_config, effects) as (_, first),
        caller(charge_slowly, kv_config, effects) as (_, second),
    ):
        assert {told(pipe) for pipe in (first, second)} == {"ready"}
        for pipe in (first, second):
            pipe.send("go")

        async def check() -> None:
            async with AsyncKeyValueStore(settings) as store:
                charge = store.once("charges", key=lambda order: order, wait_seconds=120)(slow)
                receipts = list(await asyncio.gather(charge("shared"), charge("shared")))
                assert receipts == ["receipt of shared"] * 2
                await cancelled_and_lost(store)
                made = await asyncio.gather(*(store.get_or_set("cache", "k", slow_value, 60) for _ in range(4)))
                assert made == [made[0]] * 4

        async def slow(order: str) -> str:
            with effects.open("a", encoding="utf-8") as file:
                file.write(f"{order}\n")
            await asyncio.sleep(0.3)
            return f"receipt of {order}"

        async def slow_value() -> float:
            await asyncio.sleep(0.1)
            return time.time()

        asyncio.run(check())
        assert [told(pipe) for pipe in (first, second)] == [["receipt of shared"] * 2] * 2
    assert effects.read_text() == "shared\n"


async def cancelled_and_lost(store: AsyncKeyValueStore) -> None:
    """A cancelled function leaves its step unknown, and one that lost its step is cancelled."""
    running = asyncio.Event()

    async def endless() -> None:
        running.set()
        await asyncio.sleep(600)

    forever = store.once("charges", key="forever", lease_seconds=1.0)(endless)
    call = asyncio.ensure_future(forever())
    await asyncio.wait_for(running.wait(), 60)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(EffectUnknownError):
        await forever()
    await store.delete("charges", "forever")
    running.clear()
    call = asyncio.ensure_future(forever())
    await asyncio.wait_for(running.wait(), 60)
    await store.delete("charges", "forever")
    with pytest.raises(StepLostError):
        await asyncio.wait_for(call, 60)
    async with store.step("charges", "block", arguments=1) as step:
        await step.finish({"a": 1})
    with pytest.raises(StepConflictError):
        async with store.step("charges", "block", arguments=2):
            pytest.fail("the block must not run")
