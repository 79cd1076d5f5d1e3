"""Processes that call a function whose effect happens once. The effect is a line in a file."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path

from kvworker import KeyValueStore, KVStoreError

LEASE_SECONDS = 3.0


def charge_and_wait(config: Path, effects: Path, pipe: Connection) -> None:
    """Perform the effect, tell the parent, and wait for it before the function returns."""
    with KeyValueStore.from_config(config) as store:

        @store.once("charges", key=lambda order: order, lease_seconds=LEASE_SECONDS)
        def charge(order: str) -> str:
            _add_line(effects, order)
            pipe.send("charged")
            pipe.recv()
            return f"receipt of {order}"

        try:
            pipe.send(charge("o-17"))
        except KVStoreError as error:
            pipe.send(type(error).__name__)


def charge_slowly(config: Path, effects: Path, pipe: Connection) -> None:
    """Call it together with other processes, and send the results of two threads' worth of calls."""
    with KeyValueStore.from_config(config) as store:

        @store.once("charges", key=lambda order: order, wait_seconds=120)
        def charge(order: str) -> str:
            _add_line(effects, order)
            time.sleep(0.3)
            return f"receipt of {order}"

        pipe.send("ready")
        pipe.recv()
        pipe.send([charge("shared"), charge("shared")])


def _add_line(effects: Path, line: str) -> None:
    with effects.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
