"""Stops a worker in the middle of an operation, by locking the entry that it writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from kvworker import KeyValueStore
from tests.support.processes import WorkerNode, wait_until


@contextmanager
def locked_entry(postgres_url: str, key: str) -> Iterator[psycopg.Connection]:
    """Hold the row lock of an entry, so that a write to it waits in the database."""
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("SELECT FROM kv_entries WHERE key = %s FOR UPDATE", (key,))
        yield connection


def waits_for_lock(connection: psycopg.Connection) -> bool:
    """True if any session of the database waits for a lock."""
    # Without this, a transaction sees only the sessions of its first query, and a worker may connect later.
    connection.execute("SELECT pg_stat_clear_snapshot()")
    found = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    ).fetchone()
    return found is not None and found[0] > 0


def kill_in_the_middle_of_an_increment(
    store: KeyValueStore, worker: WorkerNode, postgres_url: str, other_worker: WorkerNode
) -> None:
    """Kill a worker and its children while its increment waits in the database, and let another worker complete it."""
    store.set("n", "c", 10, timeout=60)
    with locked_entry(postgres_url, "c") as blocker:
        pending = store.submit("kv_increment", {"namespace": "n", "key": "c"}, timeout=120)
        wait_until(lambda: waits_for_lock(blocker), what="the operation reaching the database")
        family = worker.children()
        worker.kill()
        for child in family:
            child.kill()
        blocker.rollback()
    other_worker.start()
    assert pending.result().value == 11
    assert store.get("n", "c", timeout=60).value == 11
