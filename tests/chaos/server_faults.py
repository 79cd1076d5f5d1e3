"""What goes wrong with Valkey and the databases. Each fault comes, lasts and is over, and asserts that it was there."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from contextlib import ExitStack
from io import RawIOBase

import psycopg
from sqlalchemy import make_url

from tests.chaos.scene import Scene
from tests.chaos.stand import Stand
from tests.support.processes import wait_until

#: A key that tells whether Valkey has its data.
_MARK = "kvworker-chaos"
_SQLITE_HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
connection.execute(f"BEGIN {sys.argv[2]}")
time.sleep(float(sys.argv[3]))
connection.execute("ROLLBACK")
"""


def kill_valkey(scene: Scene) -> None:
    """Kill Valkey and start it again on its data."""
    _restart_valkey(scene, keeps_data=True)


def kill_valkey_and_data(scene: Scene) -> None:
    """Kill Valkey and start it again without its data."""
    _restart_valkey(scene, keeps_data=False)


def _restart_valkey(scene: Scene, *, keeps_data: bool) -> None:
    valkey = scene.stand.valkey
    before = valkey.pid
    with valkey.client() as client:
        client.set(_MARK, before)
    valkey.kill()
    if not keeps_data:
        valkey.forget_data()
    scene.pause(0.1, 1.0)
    valkey.start()
    valkey.ready()
    assert valkey.pid != before
    with valkey.client() as client:
        assert client.get(_MARK) == (str(before).encode() if keeps_data else None)


def cut_connections(scene: Scene) -> None:
    """Cut every connection to Valkey."""
    with scene.stand.valkey.client() as client:
        cut = sum(int(client.client_kill_filter(_type=kind, skipme=True)) for kind in ("normal", "pubsub"))
    assert cut > 0, "there was no connection to cut"


def lose_results(scene: Scene) -> None:
    """Delete results before their callers can read them, and cut those off that wait for the published copies."""
    deleted, end_at = 0, time.monotonic() + scene.chance.uniform(0.3, 1.0)
    with scene.stand.valkey.client() as client:

        def lost_some() -> bool:
            nonlocal deleted
            client.client_kill_filter(_type="pubsub")
            deleted += sum(int(client.delete(key)) for key in client.scan_iter("celery-task-meta-*", count=1000))
            return deleted > 0 and time.monotonic() > end_at

        wait_until(lost_some, what="results to delete")


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
    """Fill the file system under PostgreSQL until it refuses writes, then make room again."""
    ballast = scene.stand.disk / "ballast"
    before = _full_disks(scene.stand)
    try:
        with ballast.open("wb", buffering=0) as file:
            wait_until(lambda: _is_full(file) and _full_disks(scene.stand) > before, what="a full disk")
        scene.pause(0.3, 1.0)
    finally:
        ballast.unlink()
    scene.stand.revive_postgres()


def _is_full(file: RawIOBase) -> bool:
    with contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return True


def _full_disks(stand: Stand) -> int:
    """How often a worker met it; the server's own log is on that disk too."""
    return stand.logs().count("the database's disk is full")
