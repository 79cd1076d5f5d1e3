"""The messages that a worker drops, without overload and under it."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery import states

from kvworker.errors import OperationExpiredError, OperationTimeoutError
from kvworker.messaging.observer import Observer
from kvworker.messaging.waiting import waiting_header
from kvworker.messaging.wire import APPLY_MANY_TASK, WAITING
from kvworker.worker import late_messages
from kvworker.worker.late_messages import LateMessages


class Backend:
    """Keeps what a worker stores, in place of a server."""

    def __init__(self) -> None:
        self.stored: dict[str, tuple[str, Any]] = {}
        self.is_away = False

    server_time = staticmethod(time.time)

    def store_many(self, results: dict[str, tuple[str, Any]]) -> None:
        if self.is_away:
            raise ConnectionError
        self.stored |= results


class Timer:
    """Keeps what a worker does later."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def call_after(self, _seconds: float, call: Callable[[], None]) -> None:
        self.waiting.append(call)


def message(waited: float, task: str = "kvworker.kv_get", operation_id: str = "", **headers: Any) -> Any:
    """A message with a timeout of 10 s that has waited for so many seconds."""
    acknowledged: list[object] = []
    waiting = waiting_header(time.time() - waited + 10, 10, operation_id)
    return SimpleNamespace(
        headers={"id": "id", "task": task, WAITING: waiting, **headers},
        delivery_info={},
        channel=None,
        acknowledged=acknowledged,
        ack_log_error=lambda *_: acknowledged.append(1),
    )


@pytest.fixture
def backend() -> Backend:
    return Backend()


def late_messages_of(backend: Backend, serializer: str) -> LateMessages:
    conf, runtime = SimpleNamespace(task_serializer=serializer), SimpleNamespace(observer=Observer())
    app = SimpleNamespace(backend=backend, conf=conf, runtime=runtime)
    return LateMessages(SimpleNamespace(app=app, hub=None, connection_errors=(), timer=Timer()))


@pytest.fixture
def late(backend: Backend) -> LateMessages:
    return late_messages_of(backend, "json")


def overload(late: LateMessages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_messages, "_LATE_SECONDS", 0.0)
    assert late.drop(message(11))


def test_a_late_message_is_answered_and_acknowledged(late: LateMessages, backend: Backend) -> None:
    dropped = message(11)
    assert late.drop(dropped)
    state, error = backend.stored["id"]
    assert (state, type(error), error.args[0]) == (states.FAILURE, OperationExpiredError, "id")
    assert dropped.acknowledged


def test_in_an_event_loop_many_messages_are_acknowledged_at_once_and_answered_together(backend: Backend) -> None:
    late = late_messages_of(backend, "json")
    late._consumer.hub = "an event loop"
    dropped = [message(11, id=f"id-{number}") for number in range(3)]
    assert all(late.drop(each) for each in dropped)
    assert all(each.acknowledged for each in dropped)
    assert not backend.stored
    (run,) = late._consumer.timer.waiting
    run()
    assert set(backend.stored) == {"id-0", "id-1", "id-2"}


def test_results_that_cannot_be_stored_are_stored_later(late: LateMessages, backend: Backend) -> None:
    backend.is_away = True
    assert late.drop(message(11))
    backend.is_away = False
    (retry,) = late._consumer.timer.waiting
    retry()
    assert "id" in backend.stored


def test_with_certificates_a_header_that_nobody_has_verified_answers_no_call(backend: Backend) -> None:
    assert not late_messages_of(backend, "auth").drop(message(11))
    assert not backend.stored


@pytest.mark.parametrize("waited", [0, 6, 9])
def test_without_overload_a_message_in_time_is_handled(late: LateMessages, waited: float) -> None:
    late.drop(message(11))
    assert not late.drop(message(waited))


def test_without_overload_the_pool_decides_about_a_write_that_another_message_may_have_applied(
    late: LateMessages,
) -> None:
    assert not late.drop(message(11, "kvworker.kv_set", "my-key"))


def test_under_overload_messages_with_little_time_left_are_dropped(
    late: LateMessages, monkeypatch: pytest.MonkeyPatch
) -> None:
    overload(late, monkeypatch)
    assert [late.drop(message(waited)) for waited in (8, 6, 1, 8)] == [True, False, False, True]


def test_under_overload_the_outcome_of_a_repeated_write_is_unknown(
    late: LateMessages, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    overload(late, monkeypatch)
    assert late.drop(message(11, "kvworker.kv_set", "my-key"))
    state, error = backend.stored["id"]
    assert (state, type(error), error.operation_id) == (states.FAILURE, OperationTimeoutError, "my-key")


def test_a_coalesced_message_is_answered_for_all_its_calls(late: LateMessages, backend: Backend) -> None:
    assert late.drop(message(11, APPLY_MANY_TASK))
    assert backend.stored["id"] == (states.SUCCESS, {"results": {}, "late": True})


def test_a_redelivered_message_is_handled_since_it_may_be_applied(late: LateMessages) -> None:
    redelivered = message(11)
    redelivered.delivery_info = {"redelivered": True}
    assert not late.drop(redelivered)


@pytest.mark.parametrize(
    "waiting",
    [None, 1, [], {}, {"deadline": 1}, {"deadline": "1", "half_time": 1}, {**waiting_header(1, 1), "operation_id": 5}],
    ids=str,
)
def test_a_malformed_header_is_ignored(late: LateMessages, waiting: object) -> None:
    malformed = message(11)
    malformed.headers[WAITING] = waiting
    assert not late.drop(malformed)


def test_a_message_without_an_id_is_left_to_the_checks(late: LateMessages) -> None:
    assert not late.drop(message(11, id=5))
