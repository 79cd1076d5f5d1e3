"""The reply reader: results arrive even if a published copy or a connection is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from celery import Celery
from redis import Redis

from kvworker import Settings
from kvworker.client.transport.replies import ReplyReader
from kvworker.messaging.celery_app import make_celery
from kvworker.messaging.clock import ServerClock
from tests.support.elapsed import finishes_within
from tests.support.processes import wait_until
from tests.support.threads import threads_ended


class Waiter:
    def __init__(self) -> None:
        self.future: Future[Any] = Future()

    def result(self) -> Any:
        with finishes_within(5.0):
            return self.future.result(30.0)


@pytest.fixture
def app(valkey_url: str) -> Celery:
    return make_celery(Settings.from_mapping({"queue": {"broker_url": valkey_url}}))


@pytest.fixture
def client(valkey_url: str) -> Iterator[Redis]:
    with Redis.from_url(valkey_url) as client:
        yield client


@pytest.fixture
def sent_again() -> list[Any]:
    return []


@pytest.fixture
def reader(app: Celery, sent_again: list[Any]) -> Iterator[ReplyReader[Waiter]]:
    reader: ReplyReader[Waiter] = ReplyReader(
        app.backend, "prefix", sent_again.extend, lambda _: None, ServerClock(app.backend.server_time)
    )
    yield reader
    reader.close()


def _is_subscribed(client: Redis) -> bool:
    return bool(client.pubsub_numpat())


def _result(app: Celery, task_id: str) -> bytes:
    meta: dict[str, Any] = {
        "status": "SUCCESS",
        "result": task_id,
        "traceback": None,
        "children": [],
        "task_id": task_id,
    }
    return str(app.backend.encode(meta)).encode()


def test_a_published_result_arrives_at_once(app: Celery, client: Redis, reader: ReplyReader[Waiter]) -> None:
    waiter = Waiter()
    reader.register("prefix-1", waiter)
    wait_until(lambda: _is_subscribed(client), what="the subscription")
    app.backend.store_result("prefix-1", {"a": 1}, "SUCCESS")
    with finishes_within(0.5):
        assert waiter.future.result(30.0)["result"] == {"a": 1}
    wait_until(lambda: not client.exists("celery-task-meta-prefix-1"), what="the result forgotten")


def test_a_result_whose_published_copy_was_lost_is_found(
    app: Celery, client: Redis, reader: ReplyReader[Waiter]
) -> None:
    waiter = Waiter()
    reader.register("prefix-1", waiter)
    wait_until(lambda: _is_subscribed(client), what="the subscription")
    client.set("celery-task-meta-prefix-1", _result(app, "prefix-1"))
    assert waiter.result()["result"] == "prefix-1"


def test_after_a_lost_connection_the_reader_subscribes_again_and_reports_awaited_replies(
    app: Celery, client: Redis, reader: ReplyReader[Waiter], sent_again: list[Any]
) -> None:
    waiter, other = Waiter(), Waiter()
    reader.register("prefix-1", waiter)
    wait_until(lambda: _is_subscribed(client), what="the subscription")
    client.client_kill_filter(_type="pubsub")
    wait_until(lambda: sent_again, what="the reconnection")
    assert sent_again == [waiter]
    reader.register("prefix-2", other)
    client.publish("celery-task-meta-prefix-1", _result(app, "prefix-1"))
    client.publish("celery-task-meta-prefix-2", _result(app, "prefix-2"))
    assert waiter.result()["result"] == "prefix-1"
    assert other.result()["result"] == "prefix-2"


def test_a_thread_that_could_not_start_is_started_by_the_next_call(
    app: Celery, client: Redis, reader: ReplyReader[Waiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            reader.register("prefix-1", Waiter())
    waiter = Waiter()
    reader.register("prefix-2", waiter)
    wait_until(lambda: _is_subscribed(client), what="the subscription")
    app.backend.store_result("prefix-2", 1, "SUCCESS")
    assert waiter.result()["result"] == 1


def test_a_key_without_a_result_is_left_alone(app: Celery, client: Redis, reader: ReplyReader[Waiter]) -> None:
    waiter = Waiter()
    reader.register("prefix-1", waiter)
    wait_until(lambda: _is_subscribed(client), what="the subscription")
    for garbage in (b"", b"\xff", b"null", b'{"status": "SUCCESS"}', b"[1]"):
        client.publish("celery-task-meta-prefix-1", garbage)
    client.publish("celery-task-meta-prefix-1", _result(app, "prefix-1"))
    assert waiter.result()["result"] == "prefix-1"


def test_a_quiet_connection_is_pinged(
    app: Celery, client: Redis, reader: ReplyReader[Waiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvworker.client.transport.replies.TRUSTED_IDLE_SECONDS", 0.0)
    client.config_resetstat()
    reader.register("prefix-1", Waiter())
    wait_until(lambda: "cmdstat_ping" in client.info("commandstats"), what="a ping")
    waiter = Waiter()
    reader.register("prefix-2", waiter)

    def is_received() -> bool:
        # A pong that comes late makes the reader connect again, and it misses messages that are published meanwhile.
        client.publish("celery-task-meta-prefix-2", _result(app, "prefix-2"))
        return waiter.future.done()

    wait_until(is_received, what="the reply")
    assert waiter.result()["result"] == "prefix-2"


def test_closing_ends_the_pause_between_two_connections(
    app: Celery, client: Redis, reader: ReplyReader[Waiter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pause(_state: object) -> float:
        pausing.set()
        return 60.0

    pausing = threading.Event()
    monkeypatch.setattr("kvworker.client.transport.replies.BACKOFF", pause)
    monkeypatch.setattr("kvworker.client.transport.replies.connect", lambda _: 1 / 0)
    with threads_ended():
        reader.register("prefix-1", Waiter())
        assert pausing.wait(10)
        with finishes_within(5.0):
            reader.close()
