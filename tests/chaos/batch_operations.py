"""Operations that send batches and pipelines, each made at random for a caller."""

from __future__ import annotations

from typing import Any

from kvworker import BatchResult, KVStoreError
from tests.chaos.history import Answer, Step
from tests.chaos.request import CallerState, Request, Response
from tests.chaos.single_operations import COUNTERS

TWINS = ("left", "right")
#: An entry of text, which no increment can change.
TEXT = "text"


def twins(state: CallerState) -> Request:
    """Add the same amount to two counters in one atomic batch."""
    delta = state.rng.randint(1, 9)
    steps = tuple(Step("add", key, delta) for key in TWINS)
    return _batch(state, "twins", state.group.twins, steps, is_atomic=True)


def mixed(state: CallerState) -> Request:
    """Send a batch that is not atomic and has one step that must be refused."""
    name = state.new_id("mixed")
    steps = (
        Step("put", f"{name}-a", state.value(name)),
        Step("add", "hits", state.rng.randint(1, 9)),
        Step("fail", TEXT),
        Step("put", f"{name}-b", state.value(name)),
    )
    return _batch(state, "mixed", state.group.main, steps, is_atomic=False)


def read_twins(state: CallerState) -> Request:
    """Read both twin counters in one atomic batch."""
    steps = tuple(Step("read", key) for key in TWINS)
    return _batch(state, "read twins", state.group.twins, steps, is_atomic=True)


def pipeline(state: CallerState) -> Request:
    """Send a few writes, and a read of one of them, through a pipeline."""
    key = state.new_id("pipeline")
    steps = (
        *(Step("put", f"{key}-{number}", state.value(key)) for number in range(3)),
        *(Step("add", counter, state.rng.randint(1, 9)) for counter in COUNTERS),
    )
    namespace = state.group.main

    def send(timeout: float) -> Response:
        with state.store.pipeline(idempotency_key=key, raise_on_error=False, timeout=timeout) as pipe:
            writes = [
                pipe.set(namespace, step.key, step.value)
                if step.action == "put"
                else pipe.increment(namespace, step.key, delta=step.value)
                for step in steps
            ]
            pipe.get(namespace, steps[0].key)
        results = [write.result() for write in writes]
        answers = tuple(Answer(result.value, result.version) for result in results)
        return Response(answers, results[0].replayed)

    # The writes form one batch, and the pipeline derives its id.
    return Request("pipeline", namespace, steps, send, f"{key}#1")


def _batch(state: CallerState, kind: str, namespace: str, steps: tuple[Step, ...], *, is_atomic: bool) -> Request:
    is_read = all(step.action == "read" for step in steps)
    operation_id = "" if is_read else state.new_id(kind)
    operations = [_batch_item(step) for step in steps]

    def send(timeout: float) -> Response:
        result: BatchResult = state.store.batch(
            namespace, operations, atomic=is_atomic, idempotency_key=operation_id or None, timeout=timeout
        )
        return Response(tuple(map(_step_answer, result.results)), result.replayed)

    return Request(kind, namespace, steps, send, operation_id)


def _batch_item(step: Step) -> dict[str, Any]:
    if step.action == "put":
        return {"tool": "kv_set", "key": step.key, "value": step.value}
    if step.action == "read":
        return {"tool": "kv_get", "key": step.key}
    return {"tool": "kv_increment", "key": step.key, "delta": step.value or 1}


def _step_answer(result: Any) -> Answer:
    if isinstance(result, KVStoreError):
        return Answer(type(result).__name__)
    return Answer(result.value, result.version)
