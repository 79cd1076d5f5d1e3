"""Clients that measure the store: processes that each have an adapter, or threads that share one."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from queue import Queue
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.model import JSONValue, Operation, Step, encode_value

KEYS = 200
BATCH = 100
#: Calls in a coalesced message with 8 callers. The other calls are in flight.
COALESCED = 6
VALUE: JSONValue = {"step": 7, "tool": "search", "state": "x" * 60}
GROWN: JSONValue = {"step": 7, "tool": "search", "state": "x" * 61}
_TEXTS = (encode_value(VALUE), encode_value(GROWN))

_FLOOR_TABLE = (
    "CREATE TABLE IF NOT EXISTS floor_entries"
    " (namespace text, key text, value text NOT NULL, PRIMARY KEY (namespace, key)) WITH (fillfactor = 85)"
)
_FLOOR_SET = (
    "INSERT INTO floor_entries VALUES (%s, %s, %s) ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value"
)
_FLOOR_GET = "SELECT value FROM floor_entries WHERE namespace = %s AND key = %s"

#: The operation that creates the entries for one that creates none, or many at once.
_CREATORS = {
    "floor get": "floor set",
    "floor batch": "floor set",
    "floor coalesced": "floor set",
    "get": "set",
    "batch": "set",
    "coalesced": "set",
    "coalesced growing": "set growing",
}

Turn = Callable[[int], Any]
Start = Barrier | threading.Barrier

#: Holds this thread's client. A process is a client with one thread.
_state = threading.local()


class Client:
    """A client with an adapter, which threads of a process share, and a bare connection for the floor."""

    def __init__(self, url: str, adapter: KeyValueStoreAdapter, start: Start, number: int) -> None:
        self.start = start
        self.number = number
        self.namespace = ""
        self.warm = set[tuple[str, str]]()
        self.versions: dict[str, int | None] = {}
        self.adapter = adapter
        parsed = make_url(url)
        self.connection = psycopg.connect(
            host=str(parsed.query["host"]),
            user=parsed.username,
            dbname=parsed.database,
            autocommit=True,
            prepare_threshold=0,
        )

    def operations(self) -> Mapping[str, Turn]:
        """Give every operation by name. An operation gets the number of its turn."""
        return {
            "set": lambda turn: self.adapter.set(self.namespace, self.key(turn), VALUE),
            "set growing": lambda turn: self.adapter.set(
                f"{self.namespace} growing", self.key(turn), (VALUE, GROWN)[turn // KEYS % 2]
            ),
            "increment": lambda turn: self.adapter.increment(f"{self.namespace} counters", self.key(turn)),
            "compare and set": self.compare_and_set,
            "append": lambda turn: self.adapter.append(f"{self.namespace} lists", self.key(turn), [turn]),
            "batch": lambda turn: self.adapter.batch(
                self.namespace, [Step("set", self.key(turn + number), value=VALUE) for number in range(BATCH)]
            ),
            "coalesced": lambda turn: self.apply_many(turn, self.namespace, VALUE),
            "coalesced growing": lambda turn: self.apply_many(
                turn, f"{self.namespace} growing", (VALUE, GROWN)[turn * COALESCED // KEYS % 2]
            ),
            "floor coalesced": lambda turn: [self.floor_set(turn * COALESCED + number) for number in range(COALESCED)],
            "floor batch": lambda turn: [self.floor_set(turn + number) for number in range(BATCH)],
            "get": lambda turn: self.adapter.get(self.namespace, self.key(turn)),
            "floor set": self.floor_set,
            "floor get": lambda turn: self.connection.execute(_FLOOR_GET, (self.namespace, self.key(turn))).fetchone(),
        }

    def apply_many(self, turn: int, namespace: str, value: JSONValue) -> None:
        """Apply sets of several keys like a worker that received a coalesced message."""
        keys = [self.key(turn * COALESCED + number) for number in range(COALESCED)]
        results = self.adapter.apply_many([Operation(namespace, Step("set", key, value=value)) for key in keys])
        for key, result in zip(keys, results, strict=True):
            if result is None:
                self.adapter.set(namespace, key, value)

    def floor_set(self, turn: int) -> object:
        """Write an entry with the bare statement."""
        return self.connection.execute(_FLOOR_SET, (self.namespace, self.key(turn), _TEXTS[turn // KEYS % 2]))

    def compare_and_set(self, turn: int) -> None:
        """Write an entry of this client on condition that it has the version of its previous write."""
        key = self.key(turn)
        result = self.adapter.set(f"{self.namespace} versions", key, VALUE, expected_version=self.versions.get(key))
        self.versions[key] = result.version

    def warm_up(self, name: str) -> None:
        """Create the entries and prepare the statements, once, before the clock starts."""
        creator = _CREATORS.get(name, name)
        if (self.namespace, name) not in self.warm:
            self.warm.add((self.namespace, name))
            for turn in range(KEYS):
                self.operations()[creator](turn)
            self.operations()[name](0)
            self.operations()[name](0)

    def key(self, turn: int) -> str:
        """Name a turn's key. Clients of one namespace contend for its ledger, not for an entry."""
        return f"key {self.number} {turn % KEYS}"


@contextmanager
def running_clients(config: Mapping[str, Any], clients: int) -> Iterator[Executor]:
    """Start processes, each with its own adapter of this configuration, and connect them all."""
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(clients):
        numbers.put(number)
    initial = (dict(config), context.Barrier(clients), numbers)
    with ProcessPoolExecutor(clients, mp_context=context, initializer=_set_up_process, initargs=initial) as pool:
        yield pool


@contextmanager
def running_threads(config: Mapping[str, Any], clients: int) -> Iterator[Executor]:
    """Start threads of this process that share an adapter, like the threads of a worker."""
    numbers: Queue[int] = Queue()
    for number in range(clients):
        numbers.put(number)
    whole = {**config, "pool": {"size": clients}}
    with create_kv_store_adapter("postgres", whole) as adapter:
        initial = (config["url"], adapter, threading.Barrier(clients), numbers)
        with ThreadPoolExecutor(clients, initializer=_set_up, initargs=initial) as pool:
            yield pool


def _set_up_process(config: dict[str, Any], start: Start, numbers: Any) -> None:
    _set_up(config["url"], create_kv_store_adapter("postgres", config), start, numbers)


def _set_up(url: str, adapter: KeyValueStoreAdapter, start: Start, numbers: Any) -> None:
    _state.client = Client(url, adapter, start, numbers.get())
    _state.client.connection.execute("SELECT pg_advisory_lock(1)")
    _state.client.connection.execute(_FLOOR_TABLE)
    _state.client.connection.execute("SELECT pg_advisory_unlock(1)")


def run_turns(name: str, turns: int, *, shared: bool) -> tuple[float, float]:
    """Run turns at the same moment as the other clients.

    Returns:
        The monotonic times in seconds at which the first turn began and the last one ended.
    """
    client: Client = _state.client
    client.namespace = "shared" if shared else f"client {client.number}"
    client.warm_up(name)
    operation = client.operations()[name]
    client.start.wait(timeout=120)
    begin = time.monotonic()
    for turn in range(turns):
        operation(turn)
    return begin, time.monotonic()


def run_timed(name: str, seconds: float) -> list[float]:
    """Run an operation until the time is up, and return each duration in seconds."""
    client: Client = _state.client
    client.namespace = f"client {client.number}"
    client.warm_up(name)
    operation, durations = client.operations()[name], []
    client.start.wait(timeout=120)
    end, turn = time.monotonic() + seconds, 0
    while (started := time.monotonic()) < end:
        operation(turn)
        durations.append(time.monotonic() - started)
        turn += 1
    return durations
