"""The operations of the load: what each asks, how it is sent, and what its caller learns by it."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from kvworker import BatchResult, KeyValueStore, KVStoreError, SetResult
from tests.chaos.history import Answer, Call, Step

CROWD_QUOTA_BYTES = 1500
TWINS = ("left", "right")
COUNTERS = ("hits", "bytes")
#: A counter that is increased by compare-and-set.
REGISTER = "register"
#: An entry of text, which no increment can change.
TEXT = "text"

_KEPT_KEYS = 50
_CROWD_KEYS = 6
_CLAIMS_EACH = 3


@dataclass(frozen=True)
class Told:
    """What a write or a read gave."""

    answers: tuple[Answer, ...]
    is_replay: bool = False


@dataclass(frozen=True)
class Ask:
    """An operation that can be sent again with the same id (reads have none); ``learn`` is told of its success."""

    kind: str
    namespace: str
    steps: tuple[Step, ...]
    send: Callable[[float], Told]
    operation_id: str = ""
    learn: Callable[[Call], None] = lambda _: None


class World:
    """Namespaces that several callers share."""

    def __init__(self, prefix: str) -> None:
        self.main, self.twins, self.crowd = f"{prefix}.main", f"{prefix}.twins", f"{prefix}.crowd"
        self._claims = itertools.count()

    def claim(self) -> str:
        """A name for which a few callers compete."""
        return f"claim-{next(self._claims) // _CLAIMS_EACH}"


@dataclass
class Mind:
    """What one caller knows about one world."""

    caller: str
    store: KeyValueStore
    world: World
    chance: Random
    numbers: Iterator[int]
    kept: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_KEYS))
    removed: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_KEYS))
    fleeting: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_KEYS))
    seen: Answer = field(default_factory=Answer)

    def new_id(self, kind: str) -> str:
        """An operation id that nobody else uses."""
        return f"{self.caller}-{next(self.numbers)}-{kind}"

    def value(self, operation_id: str) -> dict[str, Any]:
        """A value that nobody else writes."""
        return {"by": operation_id, "pad": "é" * self.chance.randrange(40)}

    @property
    def own_register(self) -> str:
        """A key that only this caller writes, again and again."""
        return f"of-{self.caller}"


def set_own(mind: Mind) -> Ask:
    """Set a key that is never overwritten."""
    operation_id = key = mind.new_id("set")
    step = Step("put", key, mind.value(operation_id))

    def send(timeout: float) -> Told:
        return _written(mind.store.set(mind.world.main, key, step.value, idempotency_key=operation_id, timeout=timeout))

    return Ask("set", mind.world.main, (step,), send, operation_id, lambda _: mind.kept.append(key))


def overwrite(mind: Mind) -> Ask:
    """Set the caller's own register anew."""
    operation_id, key = mind.new_id("overwrite"), mind.own_register
    step = Step("put", key, mind.value(operation_id))

    def send(timeout: float) -> Told:
        return _written(mind.store.set(mind.world.main, key, step.value, idempotency_key=operation_id, timeout=timeout))

    return Ask("overwrite", mind.world.main, (step,), send, operation_id)


def increment(mind: Mind) -> Ask:
    """Add to a counter that all share."""
    operation_id, key = mind.new_id("increment"), mind.chance.choice(COUNTERS)
    step = Step("add", key, mind.chance.randint(1, 9))

    def send(timeout: float) -> Told:
        result = mind.store.increment(
            mind.world.main, key, delta=step.value, idempotency_key=operation_id, timeout=timeout
        )
        return Told((Answer(result.value, result.version),), result.replayed)

    return Ask("increment", mind.world.main, (step,), send, operation_id)


def swap(mind: Mind) -> Ask:
    """Add 1 to a register by compare-and-set, from what was seen of it last."""
    if mind.seen.version is None:
        return read_register(mind)
    operation_id, seen = mind.new_id("swap"), mind.seen

    def send(timeout: float) -> Told:
        return _written(
            mind.store.set(
                mind.world.main,
                REGISTER,
                seen.value + 1,
                expected_version=seen.version,
                idempotency_key=operation_id,
                timeout=timeout,
            )
        )

    def learn(call: Call) -> None:
        mind.seen = call.answers[0]

    return Ask("swap", mind.world.main, (Step("add", REGISTER, 1),), send, operation_id, learn)


def read_register(mind: Mind) -> Ask:
    """Read what the next swap starts from."""

    def learn(call: Call) -> None:
        mind.seen = call.answers[0]

    return _read(mind, "read counter", REGISTER, learn)


def read_counter(mind: Mind) -> Ask:
    """Read a counter that all share."""
    return _read(mind, "read counter", mind.chance.choice(COUNTERS))


def read_own(mind: Mind) -> Ask:
    """Read something that only this caller has written, or removed."""
    keys = [mind.own_register, *mind.kept, *mind.removed]
    return _read(mind, "read own", mind.chance.choice(keys))


def claim(mind: Mind) -> Ask:
    """Set a key if nobody else has."""
    operation_id, key = mind.new_id("claim"), mind.world.claim()
    step = Step("put", key, operation_id)

    def send(timeout: float) -> Told:
        return _written(
            mind.store.set(
                mind.world.main, key, operation_id, if_absent=True, idempotency_key=operation_id, timeout=timeout
            )
        )

    return Ask("claim", mind.world.main, (step,), send, operation_id)


def delete(mind: Mind) -> Ask:
    """Delete a key that this caller has set."""
    if not mind.kept:
        return set_own(mind)
    operation_id, key = mind.new_id("delete"), mind.kept.popleft()

    def send(timeout: float) -> Told:
        result = mind.store.delete(mind.world.main, key, idempotency_key=operation_id, timeout=timeout)
        return Told((Answer(result.deleted),), result.replayed)

    steps = (Step("remove", key),)
    return Ask("delete", mind.world.main, steps, send, operation_id, lambda _: mind.removed.append(key))


def twins(mind: Mind) -> Ask:
    """Add the same to two counters at once."""
    delta = mind.chance.randint(1, 9)
    steps = tuple(Step("add", key, delta) for key in TWINS)
    return _batch(mind, "twins", mind.world.twins, steps, is_atomic=True)


def mixed(mind: Mind) -> Ask:
    """A batch whose steps stand for themselves, one of them refused."""
    name = mind.new_id("mixed")
    steps = (
        Step("put", f"{name}-a", mind.value(name)),
        Step("add", "hits", mind.chance.randint(1, 9)),
        Step("fail", TEXT),
        Step("put", f"{name}-b", mind.value(name)),
    )
    return _batch(mind, "mixed", mind.world.main, steps, is_atomic=False)


def read_twins(mind: Mind) -> Ask:
    """Read two counters at once."""
    steps = tuple(Step("read", key) for key in TWINS)
    return _batch(mind, "read twins", mind.world.twins, steps, is_atomic=True)


def pipeline(mind: Mind) -> Ask:
    """A few writes, and a read of one of them, in a pipeline."""
    key = mind.new_id("pipeline")
    steps = (
        *(Step("put", f"{key}-{number}", mind.value(key)) for number in range(3)),
        *(Step("add", counter, mind.chance.randint(1, 9)) for counter in COUNTERS),
    )
    namespace = mind.world.main

    def send(timeout: float) -> Told:
        with mind.store.pipeline(idempotency_key=key, raise_on_error=False, timeout=timeout) as pipe:
            writes = [
                pipe.set(namespace, step.key, step.value)
                if step.action == "put"
                else pipe.increment(namespace, step.key, delta=step.value)
                for step in steps
            ]
            pipe.get(namespace, steps[0].key)
        results = [write.result() for write in writes]
        answers = tuple(Answer(result.value, result.version) for result in results)
        return Told(answers, results[0].replayed)

    # The writes are one batch, whose id the pipeline makes of its own.
    return Ask("pipeline", namespace, steps, send, f"{key}#1")


def set_fleeting(mind: Mind) -> Ask:
    """Set a key that expires soon."""
    operation_id = key = mind.new_id("fleeting")
    step = Step("put", key, mind.value(operation_id), ttl_seconds=mind.chance.uniform(0.2, 2.0))

    def send(timeout: float) -> Told:
        return _written(
            mind.store.set(
                mind.world.main,
                key,
                step.value,
                ttl_seconds=step.ttl_seconds,
                idempotency_key=operation_id,
                timeout=timeout,
            )
        )

    return Ask("fleeting", mind.world.main, (step,), send, operation_id, lambda _: mind.fleeting.append(key))


def read_fleeting(mind: Mind) -> Ask:
    """Read a key that expires, or has expired."""
    if not mind.fleeting:
        return set_fleeting(mind)
    return _read(mind, "read fleeting", mind.chance.choice(mind.fleeting))


def crowd(mind: Mind) -> Ask:
    """Set a key of any size where there is little room."""
    operation_id, key = mind.new_id("crowd"), f"place-{mind.chance.randrange(_CROWD_KEYS)}"
    step = Step("put", key, [operation_id, "x" * mind.chance.randrange(500)])

    def send(timeout: float) -> Told:
        return _written(
            mind.store.set(mind.world.crowd, key, step.value, idempotency_key=operation_id, timeout=timeout)
        )

    return Ask("crowd", mind.world.crowd, (step,), send, operation_id)


def leave_crowd(mind: Mind) -> Ask:
    """Make room."""
    operation_id, key = mind.new_id("leave"), f"place-{mind.chance.randrange(_CROWD_KEYS)}"

    def send(timeout: float) -> Told:
        result = mind.store.delete(mind.world.crowd, key, idempotency_key=operation_id, timeout=timeout)
        return Told((Answer(result.deleted),), result.replayed)

    return Ask("leave", mind.world.crowd, (Step("remove", key),), send, operation_id)


def founding(mind: Mind) -> list[Ask]:
    """What must be in a world before its load begins."""
    quota_id, text_id, register_id = mind.new_id("quota"), mind.new_id("text"), mind.new_id("register")
    world, store = mind.world, mind.store

    def set_quota(timeout: float) -> Told:
        result = store.set_quota(world.crowd, CROWD_QUOTA_BYTES, idempotency_key=quota_id, timeout=timeout)
        return Told((), result.replayed)

    def set_text(timeout: float) -> Told:
        return _written(store.set(world.main, TEXT, "text", idempotency_key=text_id, timeout=timeout))

    def make_register(timeout: float) -> Told:
        result = store.increment(world.main, REGISTER, delta=0, idempotency_key=register_id, timeout=timeout)
        return Told((Answer(result.value, result.version),), result.replayed)

    return [
        Ask("quota", world.crowd, (), set_quota, quota_id),
        Ask("set", world.main, (Step("put", TEXT, "text"),), set_text, text_id),
        Ask("increment", world.main, (Step("add", REGISTER, 0),), make_register, register_id),
    ]


#: How often each is made.
MIX: dict[Callable[[Mind], Ask], int] = {
    set_own: 10,
    overwrite: 8,
    increment: 14,
    swap: 8,
    read_register: 5,
    read_counter: 4,
    read_own: 10,
    claim: 6,
    delete: 5,
    twins: 8,
    mixed: 4,
    read_twins: 4,
    pipeline: 4,
    set_fleeting: 5,
    read_fleeting: 4,
    crowd: 10,
    leave_crowd: 4,
}


def next_ask(mind: Mind) -> Ask:
    """Any of the operations."""
    (make,) = mind.chance.choices(list(MIX), list(MIX.values()))
    return make(mind)


def _read(mind: Mind, kind: str, key: str, learn: Callable[[Call], None] = lambda _: None) -> Ask:
    def send(timeout: float) -> Told:
        result = mind.store.get(mind.world.main, key, timeout=timeout)
        return Told((Answer(result.value, result.version),))

    return Ask(kind, mind.world.main, (Step("read", key),), send, learn=learn)


def _written(result: SetResult) -> Told:
    return Told((Answer(result.value, result.version),), result.replayed)


def _batch(mind: Mind, kind: str, namespace: str, steps: tuple[Step, ...], *, is_atomic: bool) -> Ask:
    is_read = all(step.action == "read" for step in steps)
    operation_id = "" if is_read else mind.new_id(kind)
    operations = [_batched(step) for step in steps]

    def send(timeout: float) -> Told:
        result: BatchResult = mind.store.batch(
            namespace, operations, atomic=is_atomic, idempotency_key=operation_id or None, timeout=timeout
        )
        return Told(tuple(map(_step_answer, result.results)), result.replayed)

    return Ask(kind, namespace, steps, send, operation_id)


def _batched(step: Step) -> dict[str, Any]:
    if step.action == "put":
        return {"tool": "kv_set", "key": step.key, "value": step.value}
    if step.action == "read":
        return {"tool": "kv_get", "key": step.key}
    return {"tool": "kv_increment", "key": step.key, "delta": step.value or 1}


def _step_answer(result: Any) -> Answer:
    if isinstance(result, KVStoreError):
        return Answer(type(result).__name__)
    return Answer(result.value, result.version)


def timed(ask: Ask, timeout: float) -> tuple[Told | None, Exception | None, float, float]:
    """Send it once: what it gave, or its error, when it began and how long it took."""
    began = time.monotonic()
    try:
        told, error = ask.send(timeout), None
    except Exception as caught:  # noqa: BLE001 - whatever a caller is given belongs into the history
        told, error = None, caught
    return told, error, began, time.monotonic() - began
