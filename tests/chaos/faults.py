"""What goes wrong with processes and servers. Each fault comes, lasts and is over, and asserts that it was there."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import RawIOBase
from pathlib import Path

import psutil
import psycopg
from sqlalchemy import make_url

from tests.acceptance.database import waits_for_lock
from tests.acceptance.processes import WorkerNode, wait_until
from tests.chaos.operations import COUNTERS
from tests.chaos.scene import Scene
from tests.chaos.stand import VISIBILITY_TIMEOUT_SECONDS, Stand

_SQLITE_HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
connection.execute(f"BEGIN {sys.argv[2]}")
time.sleep(float(sys.argv[3]))
connection.execute("ROLLBACK")
"""


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
    """Have operations wait in the database until the workers' slots are full of them."""
    with psycopg.connect(scene.stand.database_url.replace("+psycopg", "")) as connection:
        lock = "SELECT FROM kv_entries WHERE namespace = %s AND key = ANY (%s) ORDER BY key FOR UPDATE"
        connection.execute(lock, (scene.load.worlds[0].main, list(COUNTERS)))
        wait_until(lambda: waits_for_lock(connection), what="an operation that waits in the database")
        scene.pause(0.2, 0.5)
        yield


def kill_valkey(scene: Scene) -> None:
    """Kill Valkey and start it again on its data."""
    _restart_valkey(scene, keeps_data=True)


def kill_valkey_and_data(scene: Scene) -> None:
    """Kill Valkey and start it again without its data."""
    _restart_valkey(scene, keeps_data=False)


def _restart_valkey(scene: Scene, *, keeps_data: bool) -> None:
    valkey = scene.stand.valkey
    before = valkey.pid
    valkey.kill()
    if not keeps_data:
        valkey.forget_data()
    scene.pause(0.1, 1.0)
    valkey.start()
    valkey.ready()
    assert valkey.pid != before
    if not keeps_data:
        with valkey.client() as client:
            assert client.info("persistence")["aof_current_size"] < 10**6


def cut_connections(scene: Scene) -> None:
    """Cut every connection to Valkey."""
    with scene.stand.valkey.client() as client:
        cut = sum(int(client.client_kill_filter(_type=kind, skipme=True)) for kind in ("normal", "pubsub"))
    assert cut > 0, "there was no connection to cut"


def kill_postgres(scene: Scene) -> None:
    """Kill PostgreSQL, all its processes, and start it again on its data."""
    postgres = scene.stand.postgres
    before = postgres.pid
    postgres.kill()
    scene.pause(0.1, 1.0)
    postgres.start()
    assert postgres.pid not in {None, before}


def terminate_backends(scene: Scene) -> None:
    """Have PostgreSQL close the connections of the workers."""
    with scene.stand.administration() as connection:
        assert _terminate(scene.stand, connection) > 0, "there was no connection to close"


def _terminate(stand: Stand, connection: psycopg.Connection) -> int:
    statement = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = %s AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    row = connection.execute(statement, (make_url(stand.database_url).database,)).fetchone()
    return row[0] if row else 0


def exhaust_connections(scene: Scene) -> None:
    """Take all of PostgreSQL's connections, those of the workers too, and hold them."""
    with ExitStack() as held:
        first = held.enter_context(scene.stand.administration())
        _take_all(scene.stand, first, held)
        before = _refused_workers(scene.stand)
        scene.pause(0.5, 2.5)
        wait_until(lambda: _refused_workers(scene.stand) > before, what="a worker that got no connection")


def _take_all(stand: Stand, first: psycopg.Connection, held: ExitStack) -> None:
    """Connect until the workers have no connection left; they try to get each one that is free as well."""

    def took_all() -> bool:
        try:
            while True:
                held.enter_context(stand.administration())
        except psycopg.OperationalError:
            return _terminate(stand, first) == 0

    wait_until(took_all, what="all connections being taken")


def _refused_workers(stand: Stand) -> int:
    return stand.logs().count("too many clients")


def be_read_only(scene: Scene) -> None:
    """Have PostgreSQL refuse every write."""
    postgres = scene.stand.postgres
    postgres.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        postgres.execute("SELECT pg_reload_conf()")
        wait_until(lambda: _is_read_only(scene.stand), what="the server being read-only")
        scene.pause(0.3, 1.5)
    finally:
        postgres.execute("ALTER SYSTEM RESET default_transaction_read_only")
        postgres.execute("SELECT pg_reload_conf()")
    wait_until(lambda: not _is_read_only(scene.stand), what="the server taking writes")


def _is_read_only(stand: Stand) -> bool:
    with stand.administration() as connection:
        return connection.execute("SHOW default_transaction_read_only").fetchone() == ("on",)


def lock_sqlite(scene: Scene) -> None:
    """Have another process hold SQLite's lock."""
    path = make_url(scene.stand.database_url).database
    mode = scene.chance.choice(("IMMEDIATE", "EXCLUSIVE"))
    command = [sys.executable, "-c", _SQLITE_HOLDER, str(path), mode, f"{scene.chance.uniform(0.5, 3.0):.2f}"]
    subprocess.run(command, check=True, timeout=60)


def fill_disk(scene: Scene) -> None:
    """Fill the file system under PostgreSQL until it complains, then make room again."""
    postgres, ballast = scene.stand.postgres, scene.stand.disk / "ballast"
    before = _complaints(postgres.log)
    try:
        with ballast.open("wb", buffering=0) as file:
            wait_until(lambda: _is_full(file) and _complaints(postgres.log) > before, what="a full disk")
        scene.pause(0.3, 1.0)
    finally:
        ballast.unlink()
    scene.stand.revive_postgres()


def _is_full(file: RawIOBase) -> bool:
    with contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return True


def _complaints(log: Path) -> int:
    return log.read_text(errors="replace").count("No space left on device")
