"""The soak samples memory, files and connections of workers and caller during a long load. They must not grow."""

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

from tests.chaos.batch_operations import TEXT
from tests.chaos.history import Call
from tests.chaos.scenario import FaultContext

_MB = 1024 * 1024
#: The length of the window at each end of the load.
_WINDOW_SECONDS = 60.0
#: The first minute does not count, because pools fill and caches warm up.
_WARM_UP_SECONDS = 60.0
#: The relative growth that still counts as flat.
_GROWTH = 0.05
_BURSTS = 3
_BURST = 300


@dataclass(frozen=True)
class Sample:
    """One sample. Memory is the memory that is private to the processes (USS), in MB."""

    at: float
    workers_mb: float
    caller_mb: float
    worker_files: int
    caller_files: int
    database_connections: int
    valkey_connections: int


#: The absolute growth that a figure may always have.
_SLACK = {
    "workers_mb": 16.0,
    "caller_mb": 4.0,
    "worker_files": 6,
    "caller_files": 3,
    "database_connections": 3,
    "valkey_connections": 3,
}


def sample(context: FaultContext) -> None:
    """Take a sample. While warming up, first keep all workers busy, so that they open all their connections."""
    samples: list[Sample] = context.memory.setdefault("samples", [])
    if not samples or time.monotonic() - samples[0].at < _WARM_UP_SECONDS:
        _keep_all_slots_busy(context)
    samples.append(_sample(context))
    with (context.cluster.directory / "samples.jsonl").open("a") as file:
        file.write(json.dumps(asdict(samples[-1])) + "\n")


def _keep_all_slots_busy(context: FaultContext) -> None:
    """Queue far more operations than the workers have slots, so that every pool is full."""
    namespace = context.load.groups[0].main
    for store in context.stores:
        for _ in range(_BURSTS):
            read = {"namespace": namespace, "key": TEXT}
            pending = [store.submit("kv_get", read, timeout=60) for _ in range(_BURST)]
            for reply in pending:
                reply.result()


def _sample(context: FaultContext) -> Sample:
    cluster = context.cluster
    workers = [process for worker in cluster.workers for process in (psutil.Process(worker.pid), *worker.children())]
    caller = psutil.Process(os.getpid())
    database = make_url(cluster.database_url).database
    with cluster.valkey.client() as client, cluster.admin_connection() as connection:
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


def usage_is_flat(context: FaultContext, _calls: Sequence[Call]) -> Iterator[str]:
    """The figures of the last minute are not higher than those of the second minute."""
    samples: list[Sample] = context.memory["samples"]
    early, late = _windows(samples)
    for field in fields(Sample)[1:]:
        before, after = (median(getattr(sample, field.name) for sample in window) for window in (early, late))
        context.figures[field.name] = f"{before:.1f} in the second minute, {after:.1f} in the last"
        if after - before > max(_SLACK[field.name], before * _GROWTH):
            yield f"{field.name} grew from {before:.1f} to {after:.1f}"


def _windows(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Select the samples of the second and of the last minute, or of the second and last quarter of a short load."""
    length = min(_WINDOW_SECONDS, (samples[-1].at - samples[0].at) / 4)
    warm_at = samples[0].at + min(_WARM_UP_SECONDS, length)
    early = [sample for sample in samples if warm_at <= sample.at <= warm_at + length]
    late = list(takewhile(lambda sample: sample.at >= samples[-1].at - length, reversed(samples)))
    return early or [samples[0]], late
