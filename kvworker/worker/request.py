"""A task's request in the worker's main process: what monitors are told of it."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.worker.request import Request

from kvworker.errors import InvalidRequestError, OperationExpiredError, OperationRefusedError, PolicyDeniedError
from kvworker.messaging.observer import Event

#: Answers to a caller, not faults of the worker.
_REFUSALS = (InvalidRequestError, OperationExpiredError, OperationRefusedError, PolicyDeniedError)


class OperationRequest(Request):
    """A request whose refusals monitors see as events of a separate type, ``task-refused``, without a traceback.

    Flower then shows the state REFUSED, and counts no failure.
    """

    def _success_was_stored(self) -> Any:
        """Return what Celery takes for the end of a task whose process was killed: its stored success.

        Fault in Celery 5.7.0: the process may have been killed before it counted the task as a part of its chord, which
        then never ends. So a part of a chord is delivered again. The operation is replayed, and the part counted once.
        Not reported upstream.
        """
        return False if self._context.chord else super()._success_was_stored()

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002 - Celery's signature
        """End the task as Celery does, but for the event of a refusal."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, WorkerLostError):
            self.app.runtime.observer.happened(Event.PROCESS_LOST)
        is_refusal = isinstance(error, _REFUSALS)
        outcome = super().on_failure(exc_info, send_failed_event and not is_refusal, return_ok)
        if is_refusal and send_failed_event:
            self.send_event("task-refused", exception=f"{type(error).__name__}: {error}")
        return outcome
