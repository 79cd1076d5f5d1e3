"""An observer is told of each call once, however it ends."""

from __future__ import annotations

import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import states

from kvworker import InlineKeyValueStore, KeyValueStore, Settings
from kvworker.client.pending_reply import PendingReply
from kvworker.client.transport.message import Message
from kvworker.client.watching import UNWATCHED, watch_call
from kvworker.errors import (
    InvalidKeyError,
    OperationExpiredError,
    PolicyDeniedError,
    QueueUnavailableError,
    VersionConflictError,
)
from kvworker.messaging.observer import CallObserver
from kvworker.messaging.outcomes import Outcome
from kvworker.tools import TOOLS, Tool

SET = TOOLS["kv_set"]


class Recorder(CallObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.begun = 0
        self.ends: list[tuple[str, Outcome]] = []

    def call_began(self, tool: Tool) -> None:  # noqa: ARG002
        self.begun += 1

    def call_ended(self, tool: Tool, outcome: Outcome, seconds: float) -> None:
        assert seconds >= 0
        self.ends.append((tool.name, outcome))


def pending(give_up_at: float = float("inf")) -> PendingReply:
    return PendingReply(SET, "id", Message(SET.task_name, "id", {}, "", give_up_at))


def test_an_inline_store_reports_each_call() -> None:
    observer = Recorder()
    with InlineKeyValueStore(observer=observer) as store:
        store.set("n", "k", 1, idempotency_key="once")
        store.set("n", "k", 1, idempotency_key="once")
        assert store.submit("kv_get", {"namespace": "n", "key": "k"}).result().value == 1
        with pytest.raises(VersionConflictError):
            store.set("n", "k", 2, if_absent=True)
        with pytest.raises(InvalidKeyError):
            store.get("", "k")
        with pytest.raises(PolicyDeniedError):
            store.as_persona("unknown").delete("n", "k")
        with store.pipeline() as pipeline:
            pipeline.set("n", "k", 3)
            pipeline.set("n", "other", 4)
    assert observer.ends == [
        ("kv_set", Outcome("applied")),
        ("kv_set", Outcome("replayed")),
        ("kv_get", Outcome("read")),
        ("kv_set", Outcome("refused", "version_conflict")),
        ("kv_get", Outcome("invalid", "key")),
        ("kv_delete", Outcome("denied", "policy")),
        ("kv_batch", Outcome("applied")),
    ]
    assert observer.begun == len(observer.ends)


def test_a_call_that_is_interrupted_has_an_unknown_outcome() -> None:
    observer = Recorder()
    with pytest.raises(KeyboardInterrupt), watch_call(observer, SET):
        raise KeyboardInterrupt
    assert observer.ends == [("kv_set", Outcome("unknown", "interrupted"))]


@pytest.mark.parametrize(
    ("meta", "outcome"),
    [
        ({"status": states.SUCCESS, "result": {"replayed": False}}, Outcome("applied")),
        ({"status": states.SUCCESS, "result": {"replayed": True}}, Outcome("replayed")),
        (
            {"status": states.FAILURE, "result": {"exc_type": OperationExpiredError.__name__, "exc_message": ["id"]}},
            Outcome("expired", "deadline"),
        ),
    ],
)
def test_a_submitted_call_ends_with_its_answer_even_if_its_caller_does_not_wait(
    meta: dict[str, Any], outcome: Outcome
) -> None:
    observer, reply = Recorder(), pending()
    with watch_call(observer, SET) as watch:
        watch.submitted(reply)
    assert observer.ends == []
    reply.future.set_result(meta)
    reply.note_overdue()
    assert observer.ends == [("kv_set", outcome)]


def test_a_submitted_call_ends_at_its_deadline_and_not_at_a_shorter_wait() -> None:
    observer, early, late = Recorder(), pending(), pending(give_up_at=0.0)
    for reply in (early, late):
        with watch_call(observer, SET) as watch:
            watch.submitted(reply)
        reply.timeout_error()
    assert observer.ends == [("kv_set", Outcome("unsent", "queue_unavailable"))]
    late.future.set_exception(QueueUnavailableError("id", ""))
    assert len(observer.ends) == 1


def test_an_answer_at_the_deadline_ends_a_call_once() -> None:
    observer = Recorder()
    with ThreadPoolExecutor(8) as threads:
        for _ in range(200):
            with watch_call(observer, SET) as watch:
                list(threads.map(watch.failed, [OperationExpiredError("id")] * 8))
    assert len(observer.ends) == observer.begun == 200


def test_a_watched_reply_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        reply = pending()
        with watch_call(Recorder(), SET) as watch:
            watch.submitted(reply)
        reply.future.set_result({"status": states.SUCCESS, "result": {}})
        freed = weakref.ref(reply)
        del reply
        assert freed() is None
    finally:
        gc.enable()


def test_nobody_pays_for_calls_that_nobody_observes() -> None:
    assert watch_call(None, SET) is UNWATCHED


def test_a_pickled_store_has_no_observer() -> None:
    store = KeyValueStore(Settings(), observer=Recorder())
    assert pickle.loads(pickle.dumps(store))._observer is None  # noqa: S301 - our own
