"""What goes wrong with workers and beats. Each fault comes, lasts and is over, and asserts that it was there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import psutil
import psycopg

from tests.chaos.operations import COUNTERS
from tests.chaos.scene import Scene
from tests.chaos.stand import VISIBILITY_TIMEOUT_SECONDS
from tests.support.processes import WorkerNode, wait_until

_MORE_THAN_ONE_WORKER_TAKES = 4
_FINISHED_AT = re.compile(r"\[([-\d]+ [:\d]+),\d+: [^\]]+\] Task kvworker\.\S+ succeeded")


def kill_worker(scene: Scene) -> None:
    """Kill a worker's main process; its children end by themselves; start it again."""
    worker = scene.next_worker()
    family, before = worker.children(), worker.pid
    worker.kill()
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive, f"{len(alive)} children outlived their killed worker by 15 s"
    scene.stand.restart_worker(worker)
    assert worker.pid != before


def kill_child(scene: Scene) -> None:
    """Kill a process of a worker's pool; its main process makes another."""
    worker = scene.stand.workers[0]
    children = worker.children()
    victim = scene.chance.choice(children)
    victim.kill()
    wait_until(
        lambda: len(worker.children()) == len(children) and victim.pid not in {c.pid for c in worker.children()},
        what="a new child of the pool",
    )
    assert worker.status == "running"


def roll_worker(scene: Scene) -> None:
    """Stop a worker by SIGTERM and start it again, as a rolling restart does."""
    worker = scene.next_worker()
    before = worker.pid
    assert worker.stop() == 0, "a stopped worker ends with 0"
    scene.stand.restart_worker(worker)
    assert worker.pid != before


def freeze_worker(scene: Scene) -> None:
    """Freeze a worker amid its operations, for longer than the visibility timeout."""
    worker = scene.next_worker()
    with ExitStack() as frozen:
        with _counters_locked(scene):
            frozen.enter_context(suspended(worker))
        scene.pause(VISIBILITY_TIMEOUT_SECONDS + 0.5, VISIBILITY_TIMEOUT_SECONDS + 2.0)


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
def _counters_locked(scene: Scene) -> Iterator[None]:
    """Have operations wait in the database until every worker is amid one."""
    with psycopg.connect(scene.stand.database_url.replace("+psycopg", "")) as connection:
        lock = "SELECT FROM kv_entries WHERE namespace = %s AND key = ANY (%s) ORDER BY key FOR UPDATE"
        connection.execute(lock, (scene.load.worlds[0].main, list(COUNTERS)))
        wait_until(lambda: _waiting(connection) >= _MORE_THAN_ONE_WORKER_TAKES, what="operations that wait for locks")
        yield


def _waiting(connection: psycopg.Connection) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    row = connection.execute(query).fetchone()
    return row[0] if row else 0


def restart_beat(scene: Scene) -> None:
    """Kill a beat, and start it again while another goes on."""
    beat = scene.chance.choice(scene.stand.beats)
    before, sent = beat.pid, beat.logs().count("Sending due task")
    beat.kill()
    beat.start()
    wait_until(lambda: beat.logs().count("Sending due task") > sent, what="the beat sending again")
    assert beat.pid != before


def let_expired_pile_up(scene: Scene) -> None:
    """See that there are more expired entries than before, which nobody sweeps."""
    before = scene.notes.get("expired", 0)
    wait_until(lambda: scene.stand.database.expired_rows() > before, what="more expired entries")
    scene.notes["expired"] = scene.stand.database.expired_rows()


def use_wrong_clock(scene: Scene) -> None:
    """See that the worker whose clock is off has done some more."""
    worker = scene.stand.workers[-1]
    before = len(_FINISHED_AT.findall(worker.logs()))
    wait_until(lambda: len(_FINISHED_AT.findall(worker.logs())) > before, what="operations of the worker")
    logged = datetime.fromisoformat(_FINISHED_AT.findall(worker.logs())[-1])
    off_seconds = (logged.astimezone() - datetime.now(UTC)).total_seconds()
    assert abs(off_seconds - scene.stand.needs.clock_off_seconds) < 60, f"the clock is off by {off_seconds} s"
