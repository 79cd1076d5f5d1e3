"""``OnceTask`` without a broker: what a repeated run of a task gets, and what its exceptions say about the effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import Ignore, Reject

from kvworker import (
    EffectUnknownError,
    InlineKeyValueStore,
    InvalidRequestError,
    StepConflictError,
    StepFailedError,
    StepInProgressError,
    StepUnrecordedError,
)
from kvworker.durable import UnknownStep, done


class DeclinedError(Exception):
    """An error that a task declares."""


def nothing() -> None:
    """Do nothing."""


@pytest.fixture
def store() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as store:
        yield store


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("test", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        yield app


@pytest.fixture
def declare(store: InlineKeyValueStore, app: Celery) -> Callable[..., Any]:
    """Declares a task, whose name is that of its function."""

    def _declare(function: Callable[..., Any], **options: Any) -> Any:
        # A shared task would belong to every other application of this process too.
        return app.task(base=store.OnceTask, name=function.__name__, shared=False, **options)(function)

    return _declare


def run(task: Any, *args: Any, task_id: str = "id-1", **options: Any) -> Any:
    """Run a task as a worker does, in this thread."""
    return task.apply(args=args, task_id=task_id, **options)


def state(store: InlineKeyValueStore, key: str = "id-1", namespace: str = "celery.once") -> str:
    return store.step_status(namespace, key).state


def test_a_repeated_run_returns_the_recorded_result(store: InlineKeyValueStore, declare: Callable[..., Any]) -> None:
    runs: list[int] = []

    def charge(cents: int) -> dict[str, int]:
        runs.append(cents)
        return {"charged": cents, "runs": len(runs)}

    task = declare(charge)
    assert run(task, 990).get() == run(task, 990).get() == {"charged": 990, "runs": 1}
    assert run(task, 990, task_id="id-2").get() == {"charged": 990, "runs": 2}
    assert task(990)["runs"] == 3, "a direct call has no task id"
    assert store.step_status("celery.once", "id-1").value == {"charged": 990, "runs": 1}
    assert (task.acks_late, task.reject_on_worker_lost) == (True, True)


def test_a_key_holds_for_all_tasks_and_compares_the_arguments(
    store: InlineKeyValueStore, declare: Callable[..., Any]
) -> None:
    runs: list[str] = []

    def charge(self: Task[Any, Any], order: str, cents: int = 990) -> list[Any]:
        runs.append(order)
        return [self.name, cents]

    task = declare(charge, bind=True, once_namespace="charges", once_key=lambda order, cents=990: f"{order}")  # noqa: ARG005
    assert run(task, "o-17").get() == run(task, "o-17", 990, task_id="id-2").get() == task("o-17") == ["charge", 990]
    assert runs == ["o-17"]
    assert state(store, "o-17", "charges") == "done"
    with pytest.raises(StepConflictError):
        run(task, "o-17", 5, task_id="id-3").get()
    with pytest.raises(StepConflictError):
        task("o-17", 5)

    def note_order(order: str, note: object) -> str:
        return f"{order}{note}"

    identified = declare(
        note_order,
        once_key=lambda order, note: order,  # noqa: ARG005
        once_arguments=lambda order, note: order,  # noqa: ARG005
    )
    assert run(identified, "o-18", {1}).get() == run(identified, "o-18", {2}).get() == "o-18{1}"


def test_a_retry_releases_the_step_and_its_last_error_too(
    store: InlineKeyValueStore, declare: Callable[..., Any]
) -> None:
    runs: list[int] = []
    states: list[str] = []

    def flaky(self: Task[Any, Any], failures: int) -> int:
        runs.append(self.request.retries)
        states.append(state(store, self.request.id))
        if len(runs) <= failures:
            raise ConnectionError("refused")
        return len(runs)

    task = declare(flaky, bind=True, autoretry_for=(ConnectionError,), max_retries=2, retry_backoff=False)
    assert run(task, 2).get() == run(task, 2).get() == 3
    assert (runs, states) == ([0, 1, 2], ["in_progress"] * 3)
    with pytest.raises(ConnectionError):
        run(task, 99, task_id="id-2").get()
    assert state(store, "id-2") == "absent"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (DeclinedError("no funds"), "failed"),
        (ConnectionRefusedError("x"), "absent"),
        (Reject("later", requeue=False), "absent"),
        (Ignore(), "failed"),
        (ValueError("secret"), "unknown"),
    ],
)
def test_an_error_says_whether_the_effect_happened(
    store: InlineKeyValueStore, declare: Callable[..., Any], error: Exception, outcome: str
) -> None:
    runs: list[int] = []

    def charge() -> None:
        runs.append(1)
        raise error

    task = declare(charge, once_record=DeclinedError, once_release=(ConnectionRefusedError,))
    first = run(task)
    assert state(store) == outcome
    second = run(task)
    assert len(runs) == (2 if outcome == "absent" else 1)
    assert second.state == first.state or outcome == "unknown"
    if outcome == "unknown":
        assert isinstance(second.result, EffectUnknownError)
        assert "secret" not in str(second.result)
    elif isinstance(error, DeclinedError):
        assert (type(second.result), second.result.args) == (DeclinedError, ("no funds",))


def test_a_reconcile_function_settles_an_unknown_run(store: InlineKeyValueStore, declare: Callable[..., Any]) -> None:
    lost = store.step_begin("celery.once", "id-1", holder="dead").token or 0
    store.step_finish("celery.once", "id-1", lost, "unknown")

    def look(step: UnknownStep) -> object:
        assert step.lost_token == lost
        return done({"found": step.key})

    def charge() -> None:
        pytest.fail("the effect has happened")

    task = declare(charge, once_on_unknown=look)
    assert run(task).get() == {"found": "id-1"}


def test_a_run_does_not_fall_into_its_own_step(store: InlineKeyValueStore, declare: Callable[..., Any]) -> None:
    def countdown(self: Task[Any, Any], number: int) -> int:
        return number and 1 + self(number - 1)

    assert run(declare(countdown, bind=True), 3).get() == 3


def test_without_a_broker_a_step_in_progress_is_an_error(
    store: InlineKeyValueStore, declare: Callable[..., Any]
) -> None:
    store.step_begin("celery.once", "id-1", holder="another")
    with pytest.raises(StepInProgressError):
        run(declare(nothing, once_wait_seconds=0.0)).get()


def test_a_result_that_is_not_json_is_not_repeated(store: InlineKeyValueStore, declare: Callable[..., Any]) -> None:
    runs: list[int] = []

    def pair() -> tuple[int, int]:
        runs.append(1)
        return 1, 2

    task = declare(pair)
    for _ in range(2):
        with pytest.raises(StepUnrecordedError):
            run(task).get()
    assert (runs, state(store)) == ([1], "done")


def test_an_operator_s_failure_is_raised(store: InlineKeyValueStore, declare: Callable[..., Any]) -> None:
    token = store.step_begin("celery.once", "id-1").token or 0
    store.step_finish("celery.once", "id-1", token, "failed", value={"message": "looked it up"})
    with pytest.raises(StepFailedError) as caught:
        run(declare(nothing)).get()
    assert caught.value.message == "looked it up"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"once_lease_second": 5}, "no option 'once_lease_second'; did you mean once_lease_seconds?"),
        ({"once_lease_seconds": 0}, "lease_seconds must be above 0"),
        ({"once_namespace": ""}, "namespace"),
        ({"once_key": "o-17"}, "once_key must be a function of the task's arguments"),
        ({"once_arguments": lambda: 1}, "once_arguments needs once_key"),
        ({"once_max_waits": -1}, "once_max_waits must be"),
    ],
)
def test_a_wrong_option_is_refused_where_the_task_is_declared(
    declare: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        declare(nothing, **options).name  # noqa: B018 - Celery binds a task when it is first used
