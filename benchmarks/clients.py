"""The clients that measure the store: processes with adapters of their own, or threads that share one."""

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
#: What a worker finds in a message of calls that were gathered: of 8 callers, all but those that are on their way.
TOGETHER = 6
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

#: What makes the entries of an operation that has more than one, or makes none.
_MAKERS = {
    "floor get": "floor set",
    "floor batch": "floor set",
    "floor together": "floor set",
    "get": "set",
    "batch": "set",
    "together": "set",
    "together growing": "set growing",
}

Turn = Callable[[int], Any]
Start = Barrier | threading.Barrier

#: A client is a process, or a thread.
_state = threading.local()


class Client:
    """What one client measures with: the adapter, its own or that of its process, and a bare connection."""

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
        """Everything that can be measured, by name; an operation gets its turn's number."""
        return {
            "set": lambda turn: self.adapter.set(self.namespace, self.key(turn), VALUE),
            "set growing": lambda turn: self.adapter.set(
                f"{self.namespace} growing", self.key(turn), (VALUE, GROWN)[turn // KEYS % 2]
            ),
            "increment": lambda turn: self.adapter.increment(f"{self.namespace} counters", self.key(turn)),
            "compare and set": self.compare_and_set,
            "batch": lambda turn: self.adapter.batch(
                self.namespace, [Step("set", self.key(turn + number), value=VALUE) for number in range(BATCH)]
            ),
            "together": lambda turn: self.apply_many(turn, self.namespace, VALUE),
            "together growing": lambda turn: self.apply_many(
                turn, f"{self.namespace} growing", (VALUE, GROWN)[turn * TOGETHER // KEYS % 2]
            ),
            "floor together": lambda turn: [self.floor_set(turn * TOGETHER + number) for number in range(TOGETHER)],
            "floor batch": lambda turn: [self.floor_set(turn + number) for number in range(BATCH)],
            "get": lambda turn: self.adapter.get(self.namespace, self.key(turn)),
            "floor set": self.floor_set,
            "floor get": lambda turn: self.connection.execute(_FLOOR_GET, (self.namespace, self.key(turn))).fetchone(),
        }

    def apply_many(self, turn: int, namespace: str, value: JSONValue) -> None:
        """Take sets of several keys as a worker takes calls that were gathered."""
        keys = [self.key(turn * TOGETHER + number) for number in range(TOGETHER)]
        taken = self.adapter.apply_many([Operation(namespace, Step("set", key, value=value)) for key in keys])
        for key, result in zip(keys, taken, strict=True):
            if result is None:
                self.adapter.set(namespace, key, value)

    def floor_set(self, turn: int) -> object:
        """Write an entry by the bare statement."""
        return self.connection.execute(_FLOOR_SET, (self.namespace, self.key(turn), _TEXTS[turn // KEYS % 2]))

    def compare_and_set(self, turn: int) -> None:
        """Write an entry that only this client writes, if it is of the version of the write before."""
        key = self.key(turn)
        result = self.adapter.set(f"{self.namespace} versions", key, VALUE, expected_version=self.versions.get(key))
        self.versions[key] = result.version

    def warm_up(self, name: str) -> None:
        """Before the clock runs, once: entries are there, and statements prepared."""
        maker = _MAKERS.get(name, name)
        if (self.namespace, name) not in self.warm:
            self.warm.add((self.namespace, name))
            for turn in range(KEYS):
                self.operations()[maker](turn)
            self.operations()[name](0)
            self.operations()[name](0)

    def key(self, turn: int) -> str:
        """The key of a turn; clients of one namespace meet at the ledger, not at the entry."""
        return f"key {self.number} {turn % KEYS}"


@contextmanager
def running_clients(config: Mapping[str, Any], clients: int) -> Iterator[Executor]:
    """Processes, each with an adapter of this configuration, all connected."""
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(clients):
        numbers.put(number)
    initial = (dict(config), context.Barrier(clients), numbers)
    with ProcessPoolExecutor(clients, mp_context=context, initializer=_set_up_process, initargs=initial) as pool:
        yield pool


@contextmanager
def running_threads(config: Mapping[str, Any], clients: int) -> Iterator[Executor]:
    """Threads of this process that share an adapter, as those of a worker do."""
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
    """Take turns at the same moment as the other clients; when the first began and the last ended."""
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
    """How long each operation took, in seconds, until time was up."""
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
