"""What workers and caller hold on to, sampled during a long load: it must not grow."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import takewhile
from statistics import median

import psutil
from sqlalchemy import make_url

from tests.chaos.history import Call
from tests.chaos.operations import TEXT
from tests.chaos.scene import Scene

_MB = 1024 * 1024
#: The window at either end of the load.
_WINDOW_SECONDS = 60.0
#: The first minute is left out: pools are filled, caches warm up.
_WARM_UP_SECONDS = 60.0
#: How much more at the end is still flat, as a share.
_GROWTH = 0.05
_BURSTS = 3
_BURST = 300


@dataclass(frozen=True)
class Sample:
    """What there is at a time; memory is what only these processes have (USS), in MB."""

    at: float
    workers_mb: float
    caller_mb: float
    worker_files: int
    caller_files: int
    database_connections: int
    valkey_connections: int


#: What a figure may grow by, whatever its share.
_SLACK = {
    "workers_mb": 16.0,
    "caller_mb": 4.0,
    "worker_files": 6,
    "caller_files": 3,
    "database_connections": 3,
    "valkey_connections": 3,
}


def sample(scene: Scene) -> None:
    """Take a sample; in the beginning, after all that workers open at need has been needed."""
    samples: list[Sample] = scene.notes.setdefault("samples", [])
    if not samples or time.monotonic() - samples[0].at < _WARM_UP_SECONDS:
        _keep_all_slots_busy(scene)
    samples.append(_sample(scene))
    with (scene.stand.directory / "samples.jsonl").open("a") as file:
        file.write(json.dumps(asdict(samples[-1])) + "\n")


def _keep_all_slots_busy(scene: Scene) -> None:
    """Have far more operations in the queue than workers have slots, so that every pool is full."""
    namespace = scene.load.worlds[0].main
    for store in scene.stores:
        for _ in range(_BURSTS):
            read = {"namespace": namespace, "key": TEXT}
            pending = [store.submit("kv_get", read, timeout=60) for _ in range(_BURST)]
            for reply in pending:
                reply.result()


def _sample(scene: Scene) -> Sample:
    stand = scene.stand
    workers = [process for worker in stand.workers for process in (psutil.Process(worker.pid), *worker.children())]
    caller = psutil.Process(os.getpid())
    database = make_url(stand.database_url).database
    with stand.valkey.client() as client, stand.administration() as connection:
        row = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (database,)).fetchone()
        return Sample(
            at=time.monotonic(),
            workers_mb=round(sum(process.memory_full_info().uss for process in workers) / _MB, 1),
            caller_mb=round(caller.memory_full_info().uss / _MB, 1),
            worker_files=sum(process.num_fds() for process in workers),
            caller_files=caller.num_fds(),
            database_connections=row[0] if row else 0,
            valkey_connections=len(client.client_list()),
        )


def all_is_flat(scene: Scene, _calls: Sequence[Call]) -> Iterator[str]:
    """The last minute has no more than the second one."""
    samples: list[Sample] = scene.notes["samples"]
    early, late = _windows(samples)
    for field in fields(Sample)[1:]:
        before, after = (median(getattr(taken, field.name) for taken in window) for window in (early, late))
        scene.figures[field.name] = f"{before:.1f} in the second minute, {after:.1f} in the last"
        if after - before > max(_SLACK[field.name], before * _GROWTH):
            yield f"{field.name} grew from {before:.1f} to {after:.1f}"


def _windows(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """The samples of the second and of the last minute; of a short load, of its second and its last quarter."""
    length = min(_WINDOW_SECONDS, (samples[-1].at - samples[0].at) / 4)
    warm_at = samples[0].at + min(_WARM_UP_SECONDS, length)
    early = [taken for taken in samples if warm_at <= taken.at <= warm_at + length]
    late = list(takewhile(lambda taken: taken.at >= samples[-1].at - length, reversed(samples)))
    return early or [samples[0]], late
