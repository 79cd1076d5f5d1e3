"""The work of the processes in the concurrency tests. It must be importable, because they import it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from typing import Any, TypeAlias

from kvworker.adapters import KeyValueStoreAdapter, create_kv_store_adapter
from kvworker.errors import LimitExceededError, QuotaExceededError, VersionConflictError
from kvworker.model import Action, IncrementResult, Operation, Step
from kvworker.testing.apply_many import apply_all, make_operation
from tests.support.forked import context

PROCESSES = 8

Store: TypeAlias = tuple[str, dict[str, Any]]

_start: Barrier


@contextmanager
def running_processes() -> Iterator[ProcessPoolExecutor]:
    start = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, mp_context=context, initializer=_set_up, initargs=(start,)) as pool:
        yield pool


def _set_up(start: Barrier) -> None:
    global _start  # noqa: PLW0603 - a barrier can only be handed over when the process starts
    _start = start


def together(store: Store, seed: int, work: Callable[[KeyValueStoreAdapter, int], Any]) -> Any:
    """Run ``work`` at the same moment as the other processes."""
    name, config = store
    with create_kv_store_adapter(name, config) as adapter:
        adapter.get("warm", "up")
        _start.wait(timeout=60)
        return work(adapter, seed)


def fill(adapter: KeyValueStoreAdapter, seed: int) -> int:
    """Write entries of many sizes into one namespace; return how many writes were refused."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    refused = 0
    for _ in range(120):
        key = f"key {chance.randrange(40)}"
        try:
            if chance.random() < 0.15:
                adapter.delete("namespace", key)
            else:
                adapter.set("namespace", key, "x" * chance.randrange(150))
        except QuotaExceededError:
            refused += 1
    return refused


def press(adapter: KeyValueStoreAdapter, seed: int) -> Counter[str]:
    """Write many keys in a few namespaces, and then one key many times; return what refused how often."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    refused = Counter[str]()
    for number in range(300):
        namespace = f"namespace {chance.randrange(8)}" if number < 150 else "namespace"
        key = f"key {chance.randrange(100)}" if number < 150 else "key"
        try:
            if chance.random() < 0.1:
                adapter.delete(namespace, key)
            else:
                adapter.set(namespace, key, chance.choice([1, 2, 30]))
        except LimitExceededError as error:
            refused[error.counted] += 1
    return refused


def count(adapter: KeyValueStoreAdapter, _seed: int) -> None:
    """Increment counters that do not exist yet."""
    for number in range(20):
        for _ in range(3):
            adapter.increment("namespace", f"counter {number}", delta=2)


def race(adapter: KeyValueStoreAdapter, _seed: int) -> list[tuple[Any, ...]]:
    """Run the same operations as every other process; return their outcomes."""
    outcomes: list[tuple[Any, ...]] = []
    for number in range(30):
        increment = adapter.increment("namespace", "counter", operation_id=f"increment {number}")
        outcomes.append(("increment", number, increment.value, increment.replayed))
        entry = adapter.set("namespace", f"key {number}", [number], operation_id=f"set {number}")
        outcomes.append(("set", number, entry.value, entry.replayed))
        deletion = adapter.delete("namespace", f"key {number}", operation_id=f"delete {number}")
        outcomes.append(("delete", number, deletion.deleted, deletion.replayed))
        steps = [Step("increment", f"batched {key}") for key in "abc"]
        batch = adapter.batch("namespace", steps, operation_id=f"batch {number}")
        outcomes.append(("batch", number, [getattr(result, "value", None) for result in batch.results], batch.replayed))
        counted = [
            make_operation("increment", "counter", f"{key} {number}", namespace=key) for key in ("other", "namespace")
        ]
        for operation, counter in zip(counted, apply_all(adapter, counted), strict=True):
            assert isinstance(counter, IncrementResult)
            outcomes.append((f"together {operation.namespace}", number, counter.value, counter.replayed))
        claim = adapter.set("namespace", f"claim {number}", 1, if_absent=True, operation_id=f"claim {number}")
        outcomes.append(("claim", number, claim.version, claim.replayed))
    return outcomes


def swap(adapter: KeyValueStoreAdapter, seed: int) -> int:
    """Append to a list by compare-and-set; return how often another process was faster."""
    conflicts = 0
    for number in range(10):
        while True:
            entry = adapter.get("namespace", "list")
            mine = [*(entry.value if isinstance(entry.value, list) else []), f"{seed}/{number}"]
            try:
                if entry.found:
                    adapter.set("namespace", "list", mine, expected_version=entry.version)
                else:
                    adapter.set("namespace", "list", mine, if_absent=True)
            except VersionConflictError:
                conflicts += 1
            else:
                break
    return conflicts


def mix(adapter: KeyValueStoreAdapter, seed: int) -> None:
    """Write, delete, count, race, sweep and recompute in a few crowded namespaces."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    for number in range(120):
        try:
            _mixed_step(adapter, chance, number)
        except (QuotaExceededError, VersionConflictError):
            continue


def crowd(adapter: KeyValueStoreAdapter, seed: int) -> Counter[str]:
    """Fill one namespace until a quota refuses, and free and recompute some of it."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    outcomes = Counter[str]()
    for _ in range(250):
        try:
            _crowding_step(adapter, chance, f"key {seed} {chance.randrange(25)}")
        except QuotaExceededError as error:
            outcomes[type(error).__name__] += 1
    return outcomes


def _crowding_step(adapter: KeyValueStoreAdapter, chance: random.Random, key: str) -> None:
    dice = chance.random()
    if dice < 0.8:
        ttl_seconds = chance.choice([None, None, 0.05])
        adapter.set("namespace", key, "x" * chance.randrange(1000), ttl_seconds=ttl_seconds)
    elif dice < 0.88:
        adapter.delete("namespace", key)
    elif dice < 0.96:
        steps = [Step("set", f"{key} {number}", value="x" * chance.randrange(500)) for number in range(3)]
        adapter.batch("namespace", steps, atomic=chance.random() < 0.5)
    elif dice < 0.97:
        values = ["x" * chance.randrange(500) for _ in range(3)]
        apply_all(
            adapter,
            [
                make_operation("set", f"{key} {number}", namespace="namespace", value=x)
                for number, x in enumerate(values)
            ],
        )
    elif dice < 0.985:
        adapter.sweep_expired(batch_rows=5)
    else:
        adapter.recompute_ledgers()


def _mixed_step(adapter: KeyValueStoreAdapter, chance: random.Random, number: int) -> None:
    namespace, key = f"namespace {chance.randrange(3)}", f"key {chance.randrange(12)}"
    ttl_seconds = chance.choice([None, 0.01, 0.05, 60])
    dice = chance.random()
    if dice < 0.3:
        adapter.set(namespace, key, "x" * chance.randrange(120), if_absent=dice >= 0.25, ttl_seconds=ttl_seconds)
    elif dice < 0.35:
        adapter.touch(namespace, key, ttl_seconds or 5)
    elif dice < 0.36:
        adapter.clear(namespace)
    elif dice < 0.5:
        adapter.batch(namespace, _mixed_batch(chance), atomic=chance.random() < 0.5)
    elif dice < 0.55:
        adapter.delete(namespace, key)
    elif dice < 0.6:
        apply_all(adapter, _mixed_operations(chance, number))
    elif dice < 0.75:
        adapter.increment(namespace, f"counter {chance.randrange(4)}", delta=chance.randrange(-50, 50))
    elif dice < 0.85:
        adapter.increment("raced", "counter", operation_id=f"operation {number}")
    elif dice < 0.95:
        adapter.sweep_expired(batch_rows=5)
    else:
        adapter.recompute_ledgers()


def _mixed_operations(chance: random.Random, number: int) -> list[Operation]:
    operations = [make_operation("increment", "counter", f"operation {number}", namespace="raced")]
    for _ in range(6):
        namespace, key = f"namespace {chance.randrange(3)}", f"key {chance.randrange(12)}"
        value, ttl_seconds = "x" * chance.randrange(120), chance.choice([None, 0.01, 60])
        operations += [
            make_operation("set", key, namespace=namespace, value=value, ttl_seconds=ttl_seconds),
            make_operation(
                "increment", f"counter {chance.randrange(4)}", namespace=namespace, delta=chance.randrange(-50, 50)
            ),
            make_operation(chance.choice(["get", "delete"]), key, namespace=namespace),
        ]
    return chance.sample(operations, 6)


def _mixed_batch(chance: random.Random) -> list[Step]:
    actions: list[Action] = ["set", "delete", "touch", "get", "increment", "set"]
    steps = []
    for action in chance.choices(actions, k=6):
        key = f"counter {chance.randrange(4)}" if action == "increment" else f"key {chance.randrange(12)}"
        options: dict[str, Any] = {}
        if action in {"set", "increment"}:
            options["ttl_seconds"] = chance.choice([None, 0.02, 60])
        if action == "set":
            options["value"] = "x" * chance.randrange(60)
        if action == "touch":
            options["ttl_seconds"] = 60
        steps.append(Step(action, key, **options))
    return steps
