"""A rate limit for a Celery task of the user's, which holds in the whole fleet. Celery's own holds in each worker."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from celery import Task, current_task
from celery.exceptions import Retry

from kvworker.client.base import KeyValueOperations
from kvworker.durable.repeated_tasks import send_again, times_sent_again
from kvworker.errors import RateLimitExceededError
from kvworker.model import RateLimitResult, RateLimitStep, check_namespace

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

#: The header that counts how often the limit has sent a task away.
_REFUSALS: Final = "kvworker_rate_limit_refusals"
#: The longest countdown. Brokers hold a message for a bounded time only.
_MAX_COUNTDOWN_SECONDS: Final = 600.0
_MAX_DOUBLINGS: Final = 16


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate limit as the arguments of a call.

    Raises:
        InvalidRequestError: An argument is wrong.
    """

    namespace: str
    name: str
    limit: int
    per_seconds: float
    burst: int | None = None
    quantity: int = 1

    def __post_init__(self) -> None:
        check_namespace(self.namespace)
        # The step checks all other arguments.
        RateLimitStep(
            "rate_limit",
            self.name,
            limit=self.limit,
            per_seconds=self.per_seconds,
            burst=self.burst,
            quantity=self.quantity,
        )

    def take(self, store: KeyValueOperations) -> RateLimitResult:
        """Take from the limit.

        Each run of a task takes for itself: one that is delivered again makes its calls again too. So there is no
        idempotency key.
        """
        return store.rate_limit(
            self.namespace, self.name, self.limit, self.per_seconds, burst=self.burst, quantity=self.quantity
        )

    def countdown(self, answer: RateLimitResult, refusals: int) -> float:
        """Return the seconds until a task should try again.

        Many tasks may be sent away at once, and only some can run at the first possible moment. So each adds a random
        time, from a range that doubles with each refusal: a backlog then spreads over the time that it needs.
        """
        range_seconds = self.per_seconds / self.limit * self.quantity * 2 ** min(refusals, _MAX_DOUBLINGS)
        spread = random.uniform(0, min(range_seconds, _MAX_COUNTDOWN_SECONDS / 2))  # noqa: S311 - not a secret
        return min(answer.retry_after_seconds + spread, _MAX_COUNTDOWN_SECONDS)

    def error(self, answer: RateLimitResult) -> RateLimitExceededError:
        """Return the error of a call that is not allowed."""
        return RateLimitExceededError(self.namespace, self.name, answer.retry_after_seconds)


def rate_limited(
    store: KeyValueOperations, limit: RateLimit
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Return a decorator for the function of a Celery task; see ``KeyValueOperations.rate_limited``."""

    def _decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        @wraps(function)
        def _run(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
            answer = limit.take(store)
            if answer.allowed:
                return function(*args, **kwargs)
            task = _task_of(function)
            if task is None:
                raise limit.error(answer)
            raise _sent_again(task, limit, answer)

        # Celery checks the arguments of a call against it, and does not follow the wrapper.
        _run.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return _run

    return _decorate


def _task_of(function: Callable[..., object]) -> Task | None:
    """Return the task that a worker runs now, if this is its function."""
    if not current_task or current_task.request.called_directly or current_task.request.is_eager:
        return None
    run = inspect.unwrap(current_task.run)
    is_its_own = getattr(run, "__func__", run) is inspect.unwrap(function)
    return current_task._get_current_object() if is_its_own else None


def _sent_again(task: Task, limit: RateLimit, answer: RateLimitResult) -> Retry:
    countdown = limit.countdown(answer, times_sent_again(task, _REFUSALS))
    return send_again(task, _REFUSALS, countdown, limit.error(answer))
