"""Store operations against F, the bare statement that does the same without quota, TTL or operation id.

Clients are processes, each with a connection of its own. Every round measures all operations and floors
in turn, so that what slows the machine slows both.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from statistics import median
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from benchmarks.rows import Row
from kvworker.adapters import create_kv_store_adapter
from kvworker.model import JSONValue, Step, encode_value
from tests.servers import PostgresServer

CLIENTS = (1, 8)
KEYS = 200
BATCH = 100
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

_FLOORS = {"floor set": "F (upsert)", "floor batch": f"{BATCH} F (upserts)", "floor get": "F (select)"}

Operation = Callable[[int], Any]

_state: Client


@dataclass(frozen=True)
class Comparison:
    """An operation, its floor, whether all clients share one namespace, and how many turns one takes the time of."""

    name: str
    operation: str
    floor: str
    shared: bool = False
    weight: int = 1


COMPARISONS = (
    Comparison("set", "set", "floor set"),
    Comparison("set, every one grows or shrinks", "set growing", "floor set"),
    Comparison("increment", "increment", "floor set"),
    Comparison("compare and set", "compare and set", "floor set"),
    Comparison(f"batch of {BATCH} sets", "batch", "floor batch", weight=BATCH // 5),
    Comparison("get", "get", "floor get"),
)
SHARED_COMPARISONS = (
    Comparison("set, one namespace", "set", "floor set", shared=True),
    Comparison("set, every one grows or shrinks, one namespace", "set growing", "floor set", shared=True),
)


class Client:
    """What one process measures with: the adapter and a bare connection."""

    def __init__(self, url: str, start: Barrier, number: int) -> None:
        self.start = start
        self.number = number
        self.namespace = ""
        self.warm = set[tuple[str, str]]()
        self.versions: dict[str, int | None] = {}
        self.adapter = create_kv_store_adapter("postgres", {"url": url})
        parsed = make_url(url)
        self.connection = psycopg.connect(
            host=str(parsed.query["host"]),
            user=parsed.username,
            dbname=parsed.database,
            autocommit=True,
            prepare_threshold=0,
        )

    def operations(self) -> Mapping[str, Operation]:
        """Everything that can be measured, by name; an operation gets its turn's number."""
        return {
            "set": lambda turn: self.adapter.set(self.namespace, self.key(turn), VALUE),
            "set growing": lambda turn: self.adapter.set(
                self.namespace, self.key(turn), (VALUE, GROWN)[turn // KEYS % 2]
            ),
            "increment": lambda turn: self.adapter.increment(f"{self.namespace} counters", self.key(turn)),
            "compare and set": self.compare_and_set,
            "batch": lambda turn: self.adapter.batch(
                self.namespace, [Step("set", self.key(turn + number), value=VALUE) for number in range(BATCH)]
            ),
            "floor batch": lambda turn: [self.operations()["floor set"](turn + number) for number in range(BATCH)],
            "get": lambda turn: self.adapter.get(self.namespace, self.key(turn)),
            "floor set": lambda turn: self.connection.execute(
                _FLOOR_SET, (self.namespace, self.key(turn), _TEXTS[turn // KEYS % 2])
            ),
            "floor get": lambda turn: self.connection.execute(_FLOOR_GET, (self.namespace, self.key(turn))).fetchone(),
        }

    def compare_and_set(self, turn: int) -> None:
        """Write an entry that only this client writes, if it is of the version of the write before."""
        key = self.key(turn)
        result = self.adapter.set(f"{self.namespace} versions", key, VALUE, expected_version=self.versions.get(key))
        self.versions[key] = result.version

    def warm_up(self, name: str) -> None:
        """Before the clock runs, once: entries are there, and statements prepared."""
        maker = {"floor get": "floor set", "floor batch": "floor set", "get": "set", "batch": "set"}.get(name, name)
        if (self.namespace, name) not in self.warm:
            self.warm.add((self.namespace, name))
            for turn in range(KEYS):
                self.operations()[maker](turn)
            self.operations()[name](0)
            self.operations()[name](0)

    def key(self, turn: int) -> str:
        """The key of a turn; clients of one namespace meet at the ledger, not at the entry."""
        return f"key {self.number} {turn % KEYS}"


def run(postgres: PostgresServer, *, rounds: int, quick: bool) -> Iterator[Row]:
    """Measure each operation on one client and on eight; a row for each."""
    for clients in CLIENTS:
        url = postgres.url(postgres.create_database())
        comparisons = COMPARISONS if clients == 1 else COMPARISONS + SHARED_COMPARISONS
        with _running_clients(url, clients) as pool:
            samples = [_measure(pool, clients, comparisons, 200 if quick else 800) for _ in range(rounds)]
        for comparison in comparisons:
            yield _row(comparison, clients, [sample[comparison] for sample in samples])


def _running_clients(url: str, clients: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    numbers = context.Queue()
    for number in range(clients):
        numbers.put(number)
    initial = (url, context.Barrier(clients), numbers)
    return ProcessPoolExecutor(clients, mp_context=context, initializer=_set_up, initargs=initial)


def _set_up(url: str, start: Barrier, numbers: Any) -> None:
    global _state  # noqa: PLW0603 - a process of the pool is one client
    _state = Client(url, start, numbers.get())
    _state.connection.execute("SELECT pg_advisory_lock(1)")
    _state.connection.execute(_FLOOR_TABLE)
    _state.connection.execute("SELECT pg_advisory_unlock(1)")


def _measure(
    pool: ProcessPoolExecutor, clients: int, comparisons: tuple[Comparison, ...], turns: int
) -> dict[Comparison, tuple[float, float]]:
    """The rates of each operation and of its floor, all clients together."""
    sample = {}
    for comparison in comparisons:
        rates = []
        own_turns = turns // comparison.weight
        for name in (comparison.operation, comparison.floor):
            futures = [pool.submit(_run_turns, name, own_turns, shared=comparison.shared) for _ in range(clients)]
            spans = [future.result() for future in futures]
            seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
            rates.append(clients * own_turns / seconds)
        sample[comparison] = (rates[0], rates[1])
    return sample


def _run_turns(name: str, turns: int, *, shared: bool) -> tuple[float, float]:
    client = _state
    client.namespace = "shared" if shared else f"client {client.number}"
    client.warm_up(name)
    operation = client.operations()[name]
    client.start.wait(timeout=120)
    begin = time.monotonic()
    for turn in range(turns):
        operation(turn)
    return begin, time.monotonic()


def _row(comparison: Comparison, clients: int, rates: list[tuple[float, float]]) -> Row:
    return {
        "name": f"store {comparison.name}, {clients} client{'s' if clients > 1 else ''}",
        "unit": "ops/s",
        "median": median(rate for rate, _ in rates),
        "floor": _FLOORS[comparison.floor],
        "floor_median": median(floor for _, floor in rates),
        "ratio": median(rate / floor for rate, floor in rates),
    }
