"""The decorator that gives a Celery task a rate limit, outside a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from kvworker import InlineKeyValueStore, InvalidRequestError, RateLimitExceededError, RateLimitResult
from kvworker.durable.rate_limited_tasks import RateLimit


@pytest.fixture
def store() -> Iterator[InlineKeyValueStore]:
    with InlineKeyValueStore() as store:
        yield store


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("test", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        yield app


def test_a_call_outside_a_worker_raises_once_it_is_over_the_limit(store: InlineKeyValueStore, app: Celery) -> None:
    calls: list[int] = []

    def work(_task: Any, number: int) -> int:
        """Work."""
        calls.append(number)
        return number

    task = app.task(bind=True)(store.rate_limited("limits", "calls", 2, 3600)(work))
    assert [task(1), task.apply(args=(2,)).get()] == [1, 2]
    with pytest.raises(RateLimitExceededError) as caught:
        task(3)
    assert (caught.value.namespace, caught.value.key) == ("limits", "calls")
    assert 1790 < caught.value.retry_after_seconds <= 1800.1
    with pytest.raises(RateLimitExceededError):
        task.apply(args=(4,)).get()
    assert calls == [1, 2]
    assert (task.__doc__, task.name.rpartition(".")[2]) == ("Work.", "work")
    with pytest.raises(TypeError):
        task.delay()


def test_wrong_numbers_are_refused_where_the_task_is_defined(store: InlineKeyValueStore) -> None:
    for wrong in ({"limit": 0}, {"per_seconds": 0}, {"burst": 0}, {"quantity": 3}, {"name": ""}, {"namespace": " "}):
        arguments: dict[str, Any] = {"namespace": "limits", "name": "calls", "limit": 2, "per_seconds": 1, **wrong}
        with pytest.raises(InvalidRequestError):
            store.rate_limited(**arguments)


def test_a_countdown_begins_when_the_call_may_be_allowed_and_spreads() -> None:
    limit = RateLimit("limits", "calls", 2, 10)
    answer = RateLimitResult("limits", "calls", False, 0, 3.0, 10.0)
    for refusals, most in ((0, 8), (1, 13), (3, 43), (1000, 303)):
        seconds = [limit.countdown(answer, refusals) for _ in range(200)]
        assert 3 <= min(seconds) < max(seconds) <= most
    far = RateLimitResult("limits", "calls", False, 0, 86_400.0, 86_400.0)
    assert limit.countdown(far, 0) == 600
