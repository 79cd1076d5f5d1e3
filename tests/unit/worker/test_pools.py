"""The pools of workers report every outcome of a task."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from celery.concurrency.base import BasePool
from celery.concurrency.prefork import TaskPool as PreforkTaskPool
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as ThreadPool

from kvworker import Settings
from kvworker.worker.pools import SettlingPool, settling_pool
from kvworker.worker.prefork import PreforkPool
from tasks.application import make_worker_app

TIMEOUT_SECONDS = 60


def returns() -> int:
    return 5


def raises() -> None:
    raise ValueError("the-secret")


def exits() -> None:
    raise SystemExit(1)


@pytest.mark.parametrize("pool_class", [ThreadPool, SoloPool])
@pytest.mark.parametrize(
    ("target", "reported"),
    [(returns, "5"), (raises, "ValueError"), (exits, "WorkerLostError")],
    ids=["result", "error", "exit"],
)
def test_whatever_a_task_ends_with_is_reported(
    pool_class: type[BasePool], target: Callable[[], Any], reported: str
) -> None:
    outcome: Future[str] = Future()
    pool = settling_pool(pool_class)(limit=1)
    pool.start()
    pool.apply_async(
        target,
        callback=lambda result: outcome.set_result(repr(result)),
        error_callback=lambda info: outcome.set_result(type(info.exception.exc).__name__),
    )
    assert outcome.result(TIMEOUT_SECONDS) == reported
    pool.stop()


@pytest.mark.parametrize("pool_class", [ThreadPool, SoloPool])
def test_a_failing_report_ends_nothing_and_shows_nothing(
    pool_class: type[BasePool], caplog: pytest.LogCaptureFixture
) -> None:
    pool = settling_pool(pool_class)(limit=1)
    pool.start()
    pool.apply_async(returns, callback=lambda _: raises(), error_callback=print)
    outcome: Future[int] = Future()
    pool.apply_async(returns, callback=outcome.set_result, error_callback=print)
    assert outcome.result(TIMEOUT_SECONDS) == 5
    pool.stop()
    assert "the outcome of a task cannot be reported: ValueError" in caplog.text
    assert "the-secret" not in caplog.text


@pytest.mark.parametrize(
    ("given", "used"), [("prefork", PreforkPool), (PreforkTaskPool, PreforkPool), (None, PreforkPool)]
)
def test_a_worker_of_ours_uses_our_prefork_pool(given: Any, used: Any) -> None:
    assert pool_of_worker(given) is used


@pytest.mark.parametrize("given", ["threads", "solo", ThreadPool])
def test_a_worker_of_ours_settles_every_message_in_another_pool(given: Any) -> None:
    pool = pool_of_worker(given)
    assert issubclass(pool, SettlingPool)
    assert pool.__module__.startswith("celery.concurrency."), "Celery shows the module as the pool's name"


def pool_of_worker(given: Any) -> Any:
    app = make_worker_app(Settings())
    worker = app.Worker.__new__(app.Worker)
    worker.setup_defaults(pool=given)
    return worker.pool_cls
