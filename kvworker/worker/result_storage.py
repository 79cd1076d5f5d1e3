"""Stores a worker's results. If a result cannot be stored, its message goes back to the queue.

Fault in Celery 5.7.0: if the server refuses a result, the worker tries to store that error in its place, which fails as
well. The message is acknowledged without an answer, or in the pools of threads it is never settled. Not reported
upstream.
"""

from __future__ import annotations

from typing import Any, Final

from celery.exceptions import BackendStoreError, Reject
from celery.utils.log import get_logger
from redis.exceptions import RedisError, ResponseError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from kvworker.messaging.observer import Event
from kvworker.messaging.result_backend import ResultBackend
from kvworker.retries import BACKOFF

logger = get_logger(__name__)

#: The attempts to store a refused result again before its message goes back. They take about two seconds. The worker
#: finds out meanwhile that it must not consume. A server that is away gets ``result_backend_max_retries`` attempts.
_ATTEMPTS: Final = 8


class WorkerResultBackend(ResultBackend):
    """The result backend of workers."""

    def store_result(self, task_id: str, result: Any, state: str, *arguments: Any, **options: Any) -> Any:
        """Store a result. Its operation may be applied, so no other result can take its place.

        Raises:
            celery.exceptions.Reject: The server refuses it, or cannot be reached for a while. The message goes back,
                and the next worker to receive it stores the recorded result.
        """
        try:
            try:
                return super().store_result(task_id, result, state, *arguments, **options)
            except ResponseError:
                self.app.runtime.on_unavailable()
            again = Retrying(
                retry=retry_if_exception_type(ResponseError),
                wait=BACKOFF,
                stop=stop_after_attempt(_ATTEMPTS),
                reraise=True,
            )
            return again(super().store_result, task_id, result, state, *arguments, **options)
        except (RedisError, OSError, BackendStoreError) as error:
            cause = error.__cause__ if isinstance(error, BackendStoreError) else error
            if not isinstance(cause, RedisError | OSError):
                raise  # the result itself cannot be stored, and the next worker could not either
            reason = f"the result of {task_id} cannot be stored, so its message goes back to the queue: {cause}"
            self.app.runtime.observer.happened(Event.RESULT_NOT_STORED)
            logger.error("%s", reason)  # noqa: TRY400 - a traceback adds nothing
            raise Reject(reason, requeue=True) from error
