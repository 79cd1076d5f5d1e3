"""The operation ids that a worker passes on as generated ones, whose records are kept for a shorter time."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from kvworker import Settings
from kvworker.messaging.celery_app import make_celery
from kvworker.model import GeneratedOperationId, Operation, SetResult, Step
from kvworker.tools import TOOLS
from kvworker.worker.runtime import Runtime


class Store:
    """Remembers the operation ids that it is given."""

    def __init__(self) -> None:
        self.ids: list[str | None] = []

    def apply_step(self, namespace: str, step: Step, operation_id: str | None) -> SetResult:
        self.ids.append(operation_id)
        return SetResult(namespace, step.key, step.value)

    def apply_many(self, operations: list[Operation]) -> list[SetResult]:
        return [self.apply_step(o.namespace, o.step, o.operation_id) for o in operations]


@pytest.fixture
def runtime() -> Runtime:
    settings = Settings.from_mapping({})
    runtime = Runtime(make_celery(settings), settings)
    store = Store()
    runtime.adapters = SimpleNamespace(of=lambda _: store, store=store)  # type: ignore[assignment]
    return runtime


@pytest.mark.parametrize(
    ("fields", "is_generated"),
    [
        ({"deadline": 30}, True),
        ({"deadline": 1700}, True),
        ({"deadline": 1900}, False),
        ({}, False),
        ({"deadline": 30, "idempotency_key": "mine"}, False),
    ],
    ids=["a call", "a long call", "a call that outlives the record", "without a deadline", "a caller's key"],
)
@pytest.mark.parametrize("coalesced", [False, True])
def test_a_task_id_is_a_generated_id_if_the_message_has_a_near_deadline(
    runtime: Runtime, fields: dict[str, Any], *, is_generated: bool, coalesced: bool
) -> None:
    if "deadline" in fields:
        fields = {**fields, "deadline": time.time() + fields["deadline"]}
    payload = {"namespace": "n", "key": "k", "value": 1, **fields}
    request = SimpleNamespace(id="task", delivery_info={})
    if coalesced:
        runtime.run_coalesced(request, {"v": 1, "calls": {"task": {"tool": "kv_set", "payload": payload}}})
    else:
        runtime.run_operation(request, TOOLS["kv_set"], (), payload)
    (operation_id,) = runtime.adapters.store.ids  # type: ignore[attr-defined]
    assert operation_id == fields.get("idempotency_key", "task")
    assert isinstance(operation_id, GeneratedOperationId) is is_generated
