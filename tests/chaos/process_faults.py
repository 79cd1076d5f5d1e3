"""Faults of workers and beats. Each function injects a fault, ends it, and asserts that it had an effect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import psutil
import psycopg

from tests.chaos.cluster import VISIBILITY_TIMEOUT_SECONDS
from tests.chaos.scenario import ClusterContext, FaultContext
from tests.chaos.single_operations import COUNTERS
from tests.support.processes import WorkerNode, wait_until

_MORE_THAN_THE_SLOTS_OF_A_WORKER = 4
_FINISHED_AT = re.compile(r"\[([-\d]+ [:\d]+),\d+: [^\]]+\] (?:\S+: )?Task kvworker\.\S+ succeeded")


def kill_worker(context: ClusterContext) -> None:
    """Kill a worker's main process, wait until its children end, and start it again."""
    worker = context.next_worker()
    family, before = worker.children(), worker.pid
    worker.kill()
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive, f"{len(alive)} children outlived their killed worker by 15 s"
    context.cluster.restart_worker(worker)
    assert worker.pid != before


def kill_child(context: ClusterContext) -> None:
    """Kill a process of a worker's pool, and wait until its main process starts another."""
    worker = context.cluster.workers[0]
    children = worker.children()
    victim = context.rng.choice(children)
    victim.kill()

    def is_replaced() -> bool:
        alive = worker.children()
        return len(alive) == len(children) and victim not in alive

    wait_until(is_replaced, what="a new child of the pool")
    assert worker.status == "running"


def roll_worker(context: ClusterContext) -> None:
    """Stop a worker by SIGTERM and start it again, as a rolling restart does."""
    worker = context.next_worker()
    before = worker.pid
    assert worker.stop() == 0, "a stopped worker ends with 0"
    context.cluster.restart_worker(worker)
    assert worker.pid != before


def freeze_worker(context: FaultContext) -> None:
    """Freeze a worker during its operations, for longer than the visibility timeout."""
    worker = context.next_worker()
    with ExitStack() as frozen:
        with _counters_locked(context):
            frozen.enter_context(suspended(worker))
        context.pause(VISIBILITY_TIMEOUT_SECONDS + 0.5, VISIBILITY_TIMEOUT_SECONDS + 2.0)


@contextmanager
def suspended(*workers: WorkerNode) -> Iterator[None]:
    """Freeze workers with all their children."""
    family = [process for worker in workers for process in (psutil.Process(worker.pid), *worker.children())]
    try:
        for process in family:
            process.suspend()
        yield
    finally:
        for process in family:
            if process.is_running():
                process.resume()


@contextmanager
def _counters_locked(context: FaultContext) -> Iterator[None]:
    """Lock the counters until every worker has an operation that waits in the database."""
    with psycopg.connect(context.cluster.database_url.replace("+psycopg", "")) as connection:
        lock = "SELECT FROM kv_entries WHERE namespace = %s AND key = ANY (%s) ORDER BY key FOR UPDATE"
        connection.execute(lock, (context.load.groups[0].main, list(COUNTERS)))
        wait_until(
            lambda: _waiting(connection) >= _MORE_THAN_THE_SLOTS_OF_A_WORKER, what="operations that wait for locks"
        )
        yield


def _waiting(connection: psycopg.Connection) -> int:
    connection.execute("SELECT pg_stat_clear_snapshot()")  # a transaction would never see a later session
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    row = connection.execute(query).fetchone()
    return row[0] if row else 0


def restart_beat(context: ClusterContext) -> None:
    """Kill a beat and start it again, while another one continues."""
    beat = context.rng.choice(context.cluster.beats)
    before, sent = beat.pid, beat.logs().count("Sending due task")
    beat.kill()
    beat.start()
    wait_until(lambda: beat.logs().count("Sending due task") > sent, what="the beat sending again")
    assert beat.pid != before


def let_expired_pile_up(context: ClusterContext) -> None:
    """Wait until there are more expired entries than before, which no worker sweeps."""
    before = context.memory.get("expired", 0)
    wait_until(lambda: context.cluster.database.expired_rows() > before, what="more expired entries")
    context.memory["expired"] = context.cluster.database.expired_rows()


def use_wrong_clock(context: ClusterContext) -> None:
    """Wait until the worker with the wrong clock has finished some more operations."""
    worker = context.cluster.workers[-1]
    before = len(_FINISHED_AT.findall(worker.logs()))
    wait_until(lambda: len(_FINISHED_AT.findall(worker.logs())) > before, what="operations of the worker")
    logged = datetime.fromisoformat(_FINISHED_AT.findall(worker.logs())[-1])
    off_seconds = (logged.astimezone() - datetime.now(UTC)).total_seconds()
    assert abs(off_seconds - context.cluster.needs.clock_off_seconds) < 60, f"the clock is off by {off_seconds} s"
