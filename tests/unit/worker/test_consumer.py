"""The consumer logs no message body, and survives a message that Celery cannot handle."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer

from kvworker.messaging.observer import Observer
from kvworker.worker.consumer import RobustConsumer


class Message:
    """A message that records how it was settled."""

    body = b'[[], {"value": "the-secret"}, {}]'
    headers: dict[str, Any] = {"id": "id", "task": "unknown", "kwargsrepr": "the-secret"}  # noqa: RUF012 - as kombu's
    properties: dict[str, Any] = {}  # noqa: RUF012 - as kombu's
    delivery_info: dict[str, Any] = {}  # noqa: RUF012 - as kombu's
    content_type = content_encoding = ""
    acknowledged = False
    errors: tuple[()] = ()
    _decoded_cache = None

    def __init__(self) -> None:
        self.settled: list[str] = []

    def ack(self) -> None:
        self.settled.append("ack")

    def reject_log_error(self, *_: object) -> None:
        self.settled.append("reject")


def consumer(cls: Any = RobustConsumer) -> Any:
    made = cls.__new__(cls)
    backend = SimpleNamespace(
        mark_as_failure=lambda *_, **__: None, store_failure_once=lambda *_: None, server_time=lambda: 0.0
    )
    conf, runtime = SimpleNamespace(task_serializer="json"), SimpleNamespace(observer=Observer())
    app = SimpleNamespace(backend=backend, conf=conf, runtime=runtime)
    vars(made).update(app=app, connection_errors=(OSError,), event_dispatcher=None)
    return made


REPORTS: dict[str, tuple[Callable[[Any, Any], None], str]] = {
    "unknown format": (lambda consumer, message: consumer.on_unknown_message(message.body, message), "reject"),
    "unknown task": (lambda consumer, message: consumer.on_unknown_task(None, message, KeyError("t")), "reject"),
    "invalid": (lambda consumer, message: consumer.on_invalid_task(None, message, InvalidTaskError("x")), "reject"),
    "undecodable": (lambda consumer, message: consumer.on_decode_error(message, ValueError("x")), "reject"),
}


@pytest.mark.parametrize(("report", "settlement"), REPORTS.values(), ids=REPORTS)
def test_a_report_shows_the_size_of_a_body_and_not_the_body(
    report: Callable[[Any, Any], None], settlement: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        report(consumer(Consumer), Message())
    assert "the-secret" in caplog.text, "Celery logs no bodies any more, so our method can go"
    caplog.clear()
    message = Message()
    with caplog.at_level(logging.WARNING):
        report(consumer(), message)
    assert message.settled == [settlement]
    assert str(len(Message.body)) in caplog.text
    assert "the-secret" not in caplog.text


def test_an_error_in_celerys_handler_refuses_the_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def create_task_handler(*_: object) -> Callable[[Any], None]:
        def handle(message: Any) -> None:
            raise message.error

        return handle

    monkeypatch.setattr(Consumer, "create_task_handler", create_task_handler)
    handle = consumer().create_task_handler()
    message: Any = Message()
    message.error = TypeError("the-secret")
    handle(message)
    assert message.settled == ["reject"]
    assert "a malformed message for unknown is refused: Celery cannot take it (TypeError)" in caplog.text
    assert "the-secret" not in caplog.text
    message.error = OSError("a lost connection")
    with pytest.raises(OSError, match="lost"):
        handle(message)
