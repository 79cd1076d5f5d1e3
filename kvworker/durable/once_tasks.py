"""``OnceTask``: a base for Celery tasks of the user's, whose effect happens at most once for each task."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar, Final

from celery import Task
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, Retry

from kvworker.client.base import KeyValueOperations
from kvworker.durable.once import Calls
from kvworker.durable.repeated_tasks import send_again, times_sent_again
from kvworker.durable.step_blocks import DurableStep
from kvworker.durable.step_options import StepOptions, StepRequest
from kvworker.errors import (
    InvalidRequestError,
    KVStoreError,
    OperationExpiredError,
    OperationNotSentError,
    QueueUnavailableError,
    StepInProgressError,
    UnknownOutcomeError,
)
from kvworker.model.quoting import shown_argument
from kvworker.wording import did_you_mean

#: The header that counts how often a task was sent again because another run of it holds the step.
_WAITS: Final = "kvworker_once_waits"
_PREFIX: Final = "once_"
_OWN_OPTIONS: Final = ("once_key", "once_arguments", "once_max_waits")
#: The longest countdown. Brokers hold a message for a bounded time only.
_MAX_COUNTDOWN_SECONDS: Final = 600.0
_PAUSE_SECONDS: Final = 5.0
#: The store could not be asked, so nothing has begun.
_NOT_ASKED: Final = (UnknownOutcomeError, QueueUnavailableError, OperationNotSentError, OperationExpiredError)
#: The task asks to run again, or says where its message goes.
_RUNS_AGAIN: Final = (Retry, Reject, MaxRetriesExceededError)


@dataclass(frozen=True, slots=True)
class _Declaration:
    """What the options of a task say.

    Raises:
        InvalidRequestError: An option is wrong or unknown.
    """

    options: StepOptions
    key: Callable[..., str] | None
    arguments: Callable[..., Any] | None
    max_waits: int

    @classmethod
    def of(cls, task_class: type[Task]) -> _Declaration:
        """Read a task's class, whose attributes Celery makes of the options."""
        names = [field.name for field in fields(StepOptions)]
        _refuse_others(task_class, {*_OWN_OPTIONS, *(_PREFIX + name for name in names)})
        key, arguments, max_waits = (_option(task_class, name) for name in _OWN_OPTIONS)
        _check_functions(key, arguments)
        if isinstance(max_waits, bool) or not isinstance(max_waits, int) or max_waits < 0:
            raise InvalidRequestError(
                f"once_max_waits must be an integer of at least 0, not {shown_argument(max_waits)}"
            )
        given = {name: _option(task_class, _PREFIX + name) for name in names}
        chosen = {name: value for name, value in given.items() if value is not _MISSING}
        return cls(_with_control_flow(chosen), key, arguments, max_waits)


class OnceTask(Task):  # type: ignore[misc] # Celery has no types
    """A task whose redelivered or repeated run returns the recorded result; ``store.OnceTask`` makes the base to use.

    Its options are those of ``once`` with the prefix ``once_``, such as ``once_lease_seconds`` and ``once_on_unknown``.
    A step's key is the task's id, which stays the same in a retry, unless ``once_key`` is given.

    Attributes:
        once_namespace: The namespace of the steps.
        once_key: A function of the task's arguments that returns the key. The arguments are then compared as well.
        once_arguments: A function of the task's arguments that returns what identifies them, as a JSON value. It needs
            ``once_key``.
        once_wait_seconds: How long a run waits in its worker for another run of the same step.
        once_max_waits: How often a run is sent again while another one holds the step. After that it fails with a
            ``StepInProgressError``.
    """

    abstract = True
    #: A message that is delivered again is harmless, and a lost one is not.
    acks_late = True
    reject_on_worker_lost = True

    store: ClassVar[KeyValueOperations]
    once_namespace = "celery.once"
    once_key: Callable[..., str] | None = None
    once_arguments: Callable[..., Any] | None = None
    once_wait_seconds = 1.0
    once_max_waits = 30
    _declaration: ClassVar[_Declaration]

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Check the options when the task is bound to its application.

        Raises:
            InvalidRequestError: An option is wrong or unknown.
        """
        super().on_bound(app)
        cls._declaration = _Declaration.of(cls)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task, unless its step has ended before.

        A direct call has no task id: without ``once_key`` it just calls the function.
        """
        request = self.request
        is_direct = request.called_directly or hasattr(request, "once_entered")
        if is_direct and self._declaration.key is None:
            return super().__call__(*args, **kwargs)
        step = DurableStep(self.store, self._request_of(args, kwargs))
        call = partial(super().__call__ if is_direct else self.run, *args, **kwargs)
        request.once_entered = True
        with ExitStack() as stack:
            self._enter(stack, step, may_send=not (is_direct or request.is_eager))
            if step.needed:
                step.finish(self._attempt(step, call))
            return step.result

    def retry(self, *args: Any, **kwargs: Any) -> Any:
        """Retry the task as Celery does. It says that the effect did not happen, so the step is released."""
        self.request.once_is_retried = True
        return super().retry(*args, **kwargs)

    def _request_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StepRequest:
        declared = self._declaration
        if declared.key is not None:
            return Calls(self.run, declared.options, declared.key, declared.arguments).request(args, kwargs)
        # A task that replaces another one inherits its id.
        nesting = self.request.replaced_task_nesting
        key = f"{self.request.id}/{nesting}" if nesting else self.request.id
        return StepRequest(declared.options, key, label=self.name.rpartition(".")[2])

    def _enter(self, stack: ExitStack, step: DurableStep, *, may_send: bool) -> None:
        try:
            stack.enter_context(step)
        except (StepInProgressError, *_NOT_ASKED) as error:
            if not may_send or times_sent_again(self, _WAITS) >= self._declaration.max_waits:
                raise
            lease_seconds = error.lease_seconds if isinstance(error, StepInProgressError) else _PAUSE_SECONDS
            countdown = min(lease_seconds + random.uniform(0, 1), _MAX_COUNTDOWN_SECONDS)  # noqa: S311 - not a secret
            raise send_again(self, _WAITS, countdown, error) from None

    def _attempt(self, step: DurableStep, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            # Once no retry is left, Celery raises the error that the task wanted to be retried for.
            if hasattr(self.request, "once_is_retried") and not isinstance(error, self._declaration.options.recorded):
                # The next run is on its way. If the step is not released, it becomes unknown, and that run says so.
                with suppress(KVStoreError):
                    step.release()
            raise


_MISSING: Final = object()


def _option(task_class: type[Task], name: str) -> Any:
    """Return an option as it was given: a function that is an attribute of a class would become a method."""
    found = inspect.getattr_static(task_class, name, _MISSING)
    return found.__func__ if isinstance(found, staticmethod) else found


def _refuse_others(task_class: type[Task], known: Collection[str]) -> None:
    for name in dir(task_class):
        if name.startswith(_PREFIX) and name not in known:
            hint = did_you_mean(name, known)
            raise InvalidRequestError(f"OnceTask has no option {name!r}{hint and '; ' + hint}")


def _check_functions(key: object, arguments: object) -> None:
    for name, function in (("once_key", key), ("once_arguments", arguments)):
        if not (function is None or callable(function)):
            raise InvalidRequestError(f"{name} must be a function of the task's arguments")
    if arguments is not None and key is None:
        raise InvalidRequestError("once_arguments needs once_key: runs with one task id have the same arguments")


def _with_control_flow(chosen: Mapping[str, Any]) -> StepOptions:
    """Add the exceptions by which a task tells Celery what to do: a repeated run tells the same."""
    options = StepOptions(**chosen)
    record, release = (*options.recorded, Ignore), (*options.released, *_RUNS_AGAIN)
    return replace(options, record=record, release=release)


def once_task_of(store: KeyValueOperations) -> type[OnceTask]:
    """Return the base class of tasks whose steps are in a store."""
    return type("OnceTask", (OnceTask,), {"store": store, "abstract": True, "__doc__": OnceTask.__doc__})
