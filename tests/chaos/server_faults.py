"""Faults of Valkey and the databases. Each function injects a fault, ends it, and asserts that it had an effect."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from contextlib import ExitStack
from io import RawIOBase

import psycopg
from sqlalchemy import make_url

from kvworker import KVStoreError
from tests.chaos.cluster import Cluster
from tests.chaos.scenario import ClusterContext, FaultContext
from tests.support.processes import wait_until

#: A key that shows whether Valkey has kept its data.
_MARK = "kvworker-chaos"
#: The worker's log lines when its database goes away, and when it is back.
_STOPS, _RETURNS = "so this worker consumes nothing", "can serve again"
_SQLITE_HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], timeout=20, isolation_level=None)
connection.execute(f"BEGIN {sys.argv[2]}")
time.sleep(float(sys.argv[3]))
connection.execute("ROLLBACK")
"""


def kill_valkey(context: ClusterContext) -> None:
    """Kill Valkey and start it again on its data."""
    _restart_valkey(context, keeps_data=True)


def kill_valkey_and_data(context: ClusterContext) -> None:
    """Kill Valkey and start it again without its data."""
    _restart_valkey(context, keeps_data=False)


def _restart_valkey(context: ClusterContext, *, keeps_data: bool) -> None:
    valkey = context.cluster.valkey
    before = valkey.pid
    with valkey.client() as client:
        client.set(_MARK, before)
    valkey.kill()
    if not keeps_data:
        valkey.forget_data()
    context.pause(0.1, 1.0)
    valkey.start()
    valkey.ready()
    assert valkey.pid != before
    with valkey.client() as client:
        assert client.get(_MARK) == (str(before).encode() if keeps_data else None)


def cut_connections(context: ClusterContext) -> None:
    """Cut every connection to Valkey."""
    with context.cluster.valkey.client() as client:
        cut = sum(int(client.client_kill_filter(_type=kind, skipme=True)) for kind in ("normal", "pubsub"))
    assert cut > 0, "there was no connection to cut"


def lose_results(context: ClusterContext) -> None:
    """Delete results before their callers read them, and disconnect callers that wait for the published copies."""
    deleted, end_at = 0, time.monotonic() + context.rng.uniform(0.3, 1.0)
    with context.cluster.valkey.client() as client:

        def deleted_some() -> bool:
            nonlocal deleted
            client.client_kill_filter(_type="pubsub")
            deleted += sum(int(client.delete(key)) for key in client.scan_iter("celery-task-meta-*", count=1000))
            return deleted > 0 and time.monotonic() > end_at

        wait_until(deleted_some, what="results to delete")


def kill_postgres(context: ClusterContext) -> None:
    """Kill all processes of PostgreSQL, and start it again on its data."""
    postgres = context.cluster.postgres
    before = postgres.pid
    postgres.kill()
    context.pause(0.1, 1.0)
    postgres.start()
    assert postgres.pid not in {None, before}


def freeze_postgres(context: ClusterContext) -> None:
    """Freeze all processes of PostgreSQL until a worker has found out, then let them continue."""
    before = _silences(context.cluster)
    context.cluster.postgres.freeze()
    try:
        wait_until(lambda: _silences(context.cluster) > before, what="a worker that gets no answer")
    finally:
        context.cluster.postgres.resume()


def _silences(cluster: Cluster) -> int:
    """Count the answers that did not arrive, on an open connection or on a new one."""
    logs = cluster.logs()
    return logs.count("did not answer") + logs.count("timeout expired")


def promote_standby(context: FaultContext) -> None:
    """Kill or freeze the primary and promote its standby. Once a call succeeds, make a new standby."""
    servers = context.cluster.replicated_postgres
    if context.next_of((True, False)):
        servers.primary.freeze()
    else:
        servers.primary.kill()
    servers.standby.promote()
    wait_until(lambda: _can_write(context), what="a write after the promotion")
    servers.replace_primary()


def _can_write(context: FaultContext) -> bool:
    try:
        context.stores[0].set("promotions", "mark", 1, timeout=2)
    except KVStoreError:
        return False
    return True


def terminate_backends(context: ClusterContext) -> None:
    """Make PostgreSQL close the workers' connections."""
    with context.cluster.admin_connection() as connection:
        assert _terminate(context.cluster, connection) > 0, "there was no connection to close"


def _terminate(cluster: Cluster, connection: psycopg.Connection) -> int:
    statement = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = %s AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    row = connection.execute(statement, (make_url(cluster.database_url).database,)).fetchone()
    return row[0] if row else 0


def lock_out_worker(context: ClusterContext) -> None:
    """Keep the last worker from its database, note when it consumes nothing, and let it in again."""
    worker, role = context.cluster.workers[-1], context.cluster.role
    assert role is not None
    stops, returns = worker.logs().count(_STOPS), worker.logs().count(_RETURNS)
    role.lock_out()
    wait_until(lambda: worker.logs().count(_STOPS) > stops, what="the worker stopping to consume")
    # It cancels its queues after it has logged that it will.
    context.pause(0.2, 0.3)
    began = time.monotonic()
    # The worker gives up what it has after a second, so it would fail calls of a second if it took more of them.
    context.pause(3.0, 4.0)
    context.memory.setdefault("locked out", []).append((began, time.monotonic()))
    role.admit()
    wait_until(lambda: worker.logs().count(_RETURNS) > returns, what="the worker consuming again")


def exhaust_connections(context: ClusterContext) -> None:
    """Occupy all of PostgreSQL's connections, including those of the workers."""
    with ExitStack() as connections:
        first = connections.enter_context(context.cluster.admin_connection())
        # Workers that notice it at once consume nothing from then on, and are refused in silence.
        before = _refused_workers(context.cluster)
        _occupy_all(context.cluster, first, connections)
        context.pause(0.5, 2.5)
        wait_until(lambda: _refused_workers(context.cluster) > before, what="a worker that got no connection")


def _occupy_all(cluster: Cluster, first: psycopg.Connection, connections: ExitStack) -> None:
    """Connect until the workers have no connection left. They compete for each free connection."""

    def occupied_all() -> bool:
        try:
            while True:
                connections.enter_context(cluster.admin_connection())
        except psycopg.OperationalError:
            return _terminate(cluster, first) == 0

    wait_until(occupied_all, what="all connections being occupied")


def _refused_workers(cluster: Cluster) -> int:
    return cluster.logs().count("too many clients")


def make_read_only(context: ClusterContext) -> None:
    """Make PostgreSQL refuse every write for a while."""
    postgres = context.cluster.postgres
    postgres.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    try:
        postgres.execute("SELECT pg_reload_conf()")
        wait_until(lambda: _is_read_only(context.cluster), what="the server being read-only")
        context.pause(0.3, 1.5)
    finally:
        postgres.execute("ALTER SYSTEM RESET default_transaction_read_only")
        postgres.execute("SELECT pg_reload_conf()")
    wait_until(lambda: not _is_read_only(context.cluster), what="the server accepting writes")


def _is_read_only(cluster: Cluster) -> bool:
    with cluster.admin_connection() as connection:
        return connection.execute("SHOW default_transaction_read_only").fetchone() == ("on",)


def lock_sqlite(context: ClusterContext) -> None:
    """Let another process hold SQLite's lock."""
    path = make_url(context.cluster.database_url).database
    mode = context.rng.choice(("IMMEDIATE", "EXCLUSIVE"))
    command = [sys.executable, "-c", _SQLITE_HOLDER, str(path), mode, f"{context.rng.uniform(0.5, 3.0):.2f}"]
    subprocess.run(command, check=True, timeout=60)


def fill_disk(context: ClusterContext) -> None:
    """Fill the file system under PostgreSQL until it refuses writes, then free the space again."""
    ballast = context.cluster.disk / "ballast"
    before = _full_disks(context.cluster)
    try:
        with ballast.open("wb", buffering=0) as file:
            wait_until(lambda: _is_full(file) and _full_disks(context.cluster) > before, what="a full disk")
        context.pause(0.3, 1.0)
    finally:
        ballast.unlink()
    context.cluster.revive_postgres()


def _is_full(file: RawIOBase) -> bool:
    with contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return True


def _full_disks(cluster: Cluster) -> int:
    """Count the full disks in the workers' logs, because the server's own log is on the full disk."""
    return cluster.logs().count("the database's disk is full")
