"""A process that holds a lease until it is killed or told to go on. It must be importable: its process imports it."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from kvworker import KeyValueStore, LeaseLostError


def hold(config: Path, ttl_seconds: float, pipe: Connection) -> None:
    """Tell the token of a lease. When told to go on, tell what became of it: lost, renewed, released."""
    with KeyValueStore.from_config(config) as store:
        lease = store.lease("locks", "job", ttl_seconds=ttl_seconds, wait_seconds=60).acquire()
        pipe.send(lease.token)
        pipe.recv()
        lost = lease.lost
        try:
            lease.renew()
            renewed = True
        except LeaseLostError:
            renewed = False
        pipe.send((lost, renewed, lease.release()))
