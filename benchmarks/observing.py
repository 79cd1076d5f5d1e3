"""The processor time of a call with metrics in caller and worker, against the same without anything that counts.

Both workers run all the time, on separate queues, and are measured in turns. Nothing scrapes the one that counts:
Prometheus does so four times a minute, which is not a part of a call.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
import yaml
from prometheus_client import CollectorRegistry

from benchmarks.rows import Row
from benchmarks.workers import KEYS, NAMESPACE, READY_SECONDS, VALUE, store_answers
from kvworker import AsyncKeyValueStore, KeyValueStore, Settings
from kvworker.ops.local.child_processes import Child, ChildSpec, running_child
from kvworker.ops.metrics import CallMetrics
from tests.support.servers import free_port

#: Short turns, so that what else the machine does changes little between two of them.
_TURNS = 40
_CALLERS = 64
_TIMEOUT_SECONDS = 60


@dataclass
class _Side:
    """A worker and the store that calls it."""

    settings: Settings
    worker: Child
    store: KeyValueStore

    def processor_seconds(self) -> float:
        """Return what the worker's processes and this one have used so far."""
        process = psutil.Process(self.worker.process.pid)
        times = [member.cpu_times() for member in (process, *process.children(recursive=True))]
        return time.process_time() + sum(each.user + each.system for each in times)


def run(postgres_url: str, valkey_url: str, *, rounds: int, quick: bool) -> Iterator[Row]:
    """Measure single calls and many concurrent calls, and yield a row for each."""
    turns = 5 if quick else rounds * _TURNS
    with ExitStack() as running:
        plain = running.enter_context(_side(postgres_url, valkey_url, counts=False))
        counting = running.enter_context(_side(postgres_url, valkey_url, counts=True))
        for name, turn, calls in (
            ("one caller", _one_after_the_other, 200),
            (f"{_CALLERS} callers", _at_once, 10 * _CALLERS),
        ):
            turn(plain, calls)
            turn(counting, calls)
            floors: list[float] = []
            figures: list[float] = []
            for number in range(turns):
                # Each goes first in half of the turns.
                for is_plain in (number % 2 == 0, number % 2 == 1):
                    taken = _microseconds(plain if is_plain else counting, turn, calls)
                    (floors if is_plain else figures).append(taken)
            yield {
                "name": f"processor time of a call with metrics, {name}",
                "unit": "us",
                "median": median(figures),
                "floor": "the same without metrics",
                "floor_median": median(floors),
                "ratio": median(figure / floor for figure, floor in zip(figures, floors, strict=True)),
            }


def _microseconds(side: _Side, turn: Callable[[_Side, int], None], calls: int) -> float:
    before = side.processor_seconds()
    turn(side, calls)
    return (side.processor_seconds() - before) / calls * 1e6


def _one_after_the_other(side: _Side, calls: int) -> None:
    for number in range(calls // 2):
        side.store.set(NAMESPACE, f"key-{number % KEYS}", VALUE, timeout=_TIMEOUT_SECONDS)
        side.store.get(NAMESPACE, f"key-{number % KEYS}", timeout=_TIMEOUT_SECONDS)


def _at_once(side: _Side, calls: int) -> None:
    async def make() -> None:
        store = AsyncKeyValueStore.__new__(AsyncKeyValueStore)
        vars(store).update(settings=side.settings, _store=side.store)

        async def call(caller: int) -> None:
            for number in range(calls // _CALLERS):
                await store.get(NAMESPACE, f"key-{(caller + number) % KEYS}", timeout=_TIMEOUT_SECONDS)

        await asyncio.gather(*map(call, range(_CALLERS)))

    asyncio.run(make())


@contextmanager
def _side(postgres_url: str, valkey_url: str, *, counts: bool) -> Iterator[_Side]:
    name = "counting" if counts else "plain"
    settings = Settings.from_mapping(
        {
            "tools": {
                "kv_store": {
                    "default_adapter": "postgres",
                    "adapters": {"postgres": {"url": postgres_url, "reuse_conversation_store": False}},
                }
            },
            "queue": {
                "broker_url": valkey_url,
                "queue_name": f"kv.{name}",
                "maintenance_queue_name": f"kv.{name}.maintenance",
            },
        }
    )
    observer = CallMetrics(CollectorRegistry()) if counts else None
    with tempfile.TemporaryDirectory(prefix="kvworker-bench-") as directory, ExitStack() as running:
        spec = _worker(name, Path(directory), settings, counts=counts)
        worker = running.enter_context(running_child(spec))
        store = running.enter_context(KeyValueStore(settings, observer=observer))
        worker.wait_until(lambda: store_answers(store), READY_SECONDS)
        yield _Side(settings, worker, store)


def _worker(name: str, directory: Path, settings: Settings, *, counts: bool) -> ChildSpec:
    config = directory / "kvworker.yaml"
    config.write_text(yaml.safe_dump(settings.to_mapping()))
    application = "tasks" if counts else "benchmarks.unobserved"
    options = ["--pool", "threads", "--concurrency", "8", "--loglevel", "WARNING", "-n", f"{name}@%h"]
    environ = {**os.environ, "KVWORKER_CONFIG": str(config)}
    if counts:
        environ["KVWORKER_METRICS_LISTEN"] = str(free_port())
    command = (sys.executable, "-m", "celery", "-A", application, "worker", *options)
    return ChildSpec(name, command, directory / "log", cwd=Path.cwd(), env=environ, stop_seconds=20)
