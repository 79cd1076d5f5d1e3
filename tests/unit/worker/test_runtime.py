"""The runtime around an operation: retries, deadlines and logs."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvworker import ConfigurationError, SchemaError, Settings, StoreUnavailableError
from kvworker.messaging.celery_app import make_celery
from kvworker.model import GetResult
from kvworker.tools import TOOLS
from kvworker.worker.runtime import Runtime
from tests.support.elapsed import finishes_within


def test_an_error_that_only_an_operator_can_fix_is_in_the_workers_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapters = {"default_adapter": "sqlite", "adapters": {"sqlite": {"url": f"sqlite:///{tmp_path}/kv.sqlite"}}}
    settings = Settings.from_mapping({"tools": {"kv_store": adapters}})
    runtime = Runtime(make_celery(settings), settings)
    request = SimpleNamespace(id="task", delivery_info={})
    with pytest.raises(SchemaError):
        runtime.run_operation(request, TOOLS["kv_get"], (), {"namespace": "n", "key": "k"})
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "kvworker migrate" in caplog.text


def test_an_unavailable_store_is_retried_until_the_deadline_and_not_longer(caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.from_mapping({"queue": {"retry_seconds": 30}})
    runtime = Runtime(make_celery(settings), settings)
    outcomes: list[Exception | None] = [StoreUnavailableError("gone")] * 3 + [None]

    class Store:
        def get(self, namespace: str, key: str) -> GetResult:
            outcome = outcomes.pop(0)
            if outcome is not None:
                raise outcome
            return GetResult(namespace, key, found=False)

    runtime.adapters = SimpleNamespace(of=lambda _: Store())  # type: ignore[assignment]
    request = SimpleNamespace(id="task", delivery_info={})
    payload = {"namespace": "n", "key": "k", "deadline": time.time() + 30}
    assert runtime.run_operation(request, TOOLS["kv_get"], (), payload)["found"] is False
    assert [record.getMessage().count("trying again in") for record in caplog.records] == [1] * 3
    outcomes += [StoreUnavailableError("gone")] * 100
    with finishes_within(5), pytest.raises(StoreUnavailableError, match="gone"):
        runtime.run_operation(request, TOOLS["kv_get"], (), {**payload, "deadline": time.time() + 0.5})
    assert 90 < len(outcomes) < 100


def a_write(outcomes: list[Exception], delivery_info: dict[str, bool]) -> StoreUnavailableError:
    """Run an increment whose attempts end in these errors, and return what its caller is told."""
    settings = Settings.from_mapping({"queue": {"retry_seconds": 30}})
    runtime = Runtime(make_celery(settings), settings)

    class Store:
        def apply_step(self, *_: object, **__: object) -> object:
            raise outcomes.pop(0)

        def was_applied(self, *_: object) -> bool:
            return False

    runtime.adapters = SimpleNamespace(of=lambda _: Store())  # type: ignore[assignment]
    runtime._count_redelivery = lambda task_id: 1  # type: ignore[method-assign]  # noqa: ARG005
    request = SimpleNamespace(id="task", delivery_info=delivery_info)
    payload = {"namespace": "n", "key": "k", "deadline": time.time() + 30}
    with pytest.raises(StoreUnavailableError) as caught:
        runtime.run_operation(request, TOOLS["kv_increment"], (), payload)
    return caught.value


@pytest.mark.parametrize(
    "later", [ConfigurationError("cannot log in"), SchemaError("no tables")], ids=["login", "schema"]
)
def test_a_write_whose_attempt_may_have_been_applied_is_of_unknown_outcome(later: Exception) -> None:
    """A password that is changed while a statement commits: the retry cannot log in, but the write is there."""
    error = a_write([StoreUnavailableError("a connection was lost"), later], {})
    assert (error.operation_id, str(later) in error.detail) == ("task", True)
    error = a_write([later], {"redelivered": True})
    assert (error.operation_id, str(later) in error.detail) == ("task", True)
