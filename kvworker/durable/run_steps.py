"""The steps of a run: numbered, in a fixed order, and each ended in the message that begins the next."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from kvworker.durable.step_actions import Action, Call, Ended, HeldStep, LetGo, Steps
from kvworker.durable.step_blocks import StepState
from kvworker.durable.step_options import StepOptions, StepRequest
from kvworker.durable.step_protocol import (
    ask,
    begin,
    begin_arguments,
    begun,
    finish,
    finish_arguments,
    refuse_inherited,
    settle,
)
from kvworker.errors import InvalidRequestError, KVStoreError, StepConflictError, ValueSerializationError
from kvworker.model import JSONValue, StepBeginResult, StoredStep, arguments_digest

#: The longest time for which the end of a step waits for the next step.
HOLD_BACK_SECONDS: Final = 0.05


@dataclass(slots=True, eq=False)
class Unfinished:
    """A step whose function has returned and whose outcome is not recorded yet.

    ``arguments`` are those of its finish: a copy of the result, which the caller may change.
    """

    step: HeldStep
    arguments: Mapping[str, Any]
    is_recorded: bool = False

    @classmethod
    def of(cls, step: HeldStep, result: JSONValue) -> Unfinished | None:
        """Return the step with its result, or None if that is not a JSON value."""
        try:
            arguments = finish_arguments(step, "done", result)
        except ValueSerializationError:
            return None
        return cls(step, {**arguments, "value": arguments["value"].copy()})

    def finishing(self) -> Steps:
        """Record the outcome by itself."""
        yield from finish(self.step, "done", self.arguments["value"].value)
        self.is_recorded = True


class RunStep(StepState):
    """One step of a run.

    Args:
        request: The attempt.
        unfinished: The step before, if its outcome is not recorded yet.
        reads_first: Whether the step has probably ended in an earlier execution of the run.
    """

    def __init__(self, request: StepRequest, unfinished: Unfinished | None, *, reads_first: bool) -> None:
        super().__init__(request)
        self._unfinished = unfinished
        self._reads_first = reads_first

    @property
    def held(self) -> HeldStep | None:
        """The step if this process must perform it."""
        return self._held

    def entering(self) -> Steps:
        """Record the end of the step before and begin this one, or find its recorded outcome."""
        deadline = time.monotonic() + self._request.options.wait_seconds
        if self._reads_first and self._unfinished is None:
            self._ended = yield from self._recorded()
            if self._ended is not None:
                return
        found = yield from self._beginning()
        entered = yield from settle(self._request, found, deadline)
        if isinstance(entered, Ended):
            self._ended = entered
        else:
            self._has_entered(entered)

    def leaving(self, error: BaseException) -> Steps:
        """Record what an error of the function means."""
        return self._leaving(error)

    def hold_back(self, result: JSONValue) -> Unfinished | None:
        """Leave the step without recording its outcome. None if the result is not a JSON value."""
        self._has_left()
        unfinished = Unfinished.of(self._must_hold(), result)
        self._is_settled = unfinished is not None
        return unfinished

    def finishing(self, result: JSONValue) -> Steps:
        """Record the result."""
        self._has_left()
        return self._finishing(result)

    def _beginning(self) -> Generator[Action, Any, HeldStep | StepBeginResult]:
        unfinished = self._unfinished
        if unfinished is None:
            return (yield from begin(self._request, None))
        try:
            found: HeldStep | StepBeginResult = yield from _finish_and_begin(
                unfinished.step, unfinished.arguments, self._request
            )
        except KVStoreError:
            # What the batch could not do, or may not have done. To record the same outcome twice is harmless.
            yield from unfinished.finishing()
            return (yield from begin(self._request, None))
        unfinished.is_recorded = True
        return found

    def _recorded(self) -> Generator[Action, Any, Ended | None]:
        """Read the recorded outcome, which costs less than to ask for the step."""
        namespace, key = self._request.name
        found = yield Call("kv_get", {"namespace": namespace, "key": key}, self._request.options.timeout)
        step = StoredStep.of_value(found.value) if found.found else None
        if step is None or step.state == "reserved":
            return None
        if step.arguments != self._request.arguments:
            raise StepConflictError(namespace, key)
        return Ended(step.state, step.value, step.unrecorded)


def _finish_and_begin(step: HeldStep, arguments: Mapping[str, Any], request: StepRequest) -> Steps:
    """Record an outcome and begin the next step of the same namespace in one message.

    Returns:
        What ``begun`` returns.

    Raises:
        OperationRefusedError: Neither was applied.
        KVStoreError: Whether they were applied is unknown.
    """
    refuse_inherited(step)
    finishing = {name: value for name, value in arguments.items() if name != "namespace"}
    beginning = {name: value for name, value in begin_arguments(request).items() if name != "namespace"}
    operations = [{"tool": "kv_step_finish", **finishing}, {"tool": "kv_step_begin", **beginning}]
    given: dict[str, Any] = {"namespace": request.options.namespace, "operations": operations}
    answer, sent_at = yield from ask("kv_batch", given, request.options.timeout)
    yield LetGo(step)
    return (yield from begun(request, answer.results[1], sent_at))


def check_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Check that a function takes these arguments. A step whose function cannot be entered must not begin.

    Raises:
        TypeError: It does not.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions of extension modules tell no signature
        return
    signature.bind(*args, **kwargs)


class RunState:
    """What the runs of threads and of coroutines share: the number of the next step, and the end that is held back.

    Args:
        run_id: The run's name, with which its steps' keys begin.
        options: The options of its steps.
    """

    def __init__(self, run_id: str, options: StepOptions) -> None:
        if not isinstance(run_id, str) or not run_id.strip():
            raise InvalidRequestError("a run needs a name that is a non-blank string, such as an id of its task")
        self.run_id = run_id
        self._options = options
        self._number = 0
        self._is_replaying = False
        self._holds_back = False
        self._unfinished: Unfinished | None = None
        self._turn = threading.Lock()
        self._make_request("", (), {})

    @contextmanager
    def _turn_of(self, name: str) -> Iterator[None]:
        """Let one step at a time run, since their order must be the same in every execution."""
        if not self._turn.acquire(blocking=False):
            raise InvalidRequestError(
                f"step {name!r} cannot run while another step of run {self.run_id!r} does: a run performs its steps one"
                " after the other"
            )
        try:
            yield
        finally:
            self._turn.release()

    def _make_request(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StepRequest:
        try:
            digest = arguments_digest([name, list(args), dict(kwargs)])
        except ValueSerializationError as error:
            raise InvalidRequestError(
                f"an argument of step {name!r} is not a JSON value ({error}); bind it with functools.partial, and pass"
                " only what tells the step from another one"
            ) from None
        return StepRequest(self._options, f"{self.run_id}/{self._number:06d}", digest, label=name)

    def _next_request(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> StepRequest:
        """Return the attempt at the next step. Only a step that was entered keeps its number."""
        self._number += 1
        try:
            return self._make_request(name, args, kwargs)
        except InvalidRequestError:
            self._number -= 1
            raise

    def _not_entered(self, unfinished: Unfinished | None) -> None:
        """Give the number back, and keep the end of the step before for another attempt."""
        self._number -= 1
        if unfinished is not None and not unfinished.is_recorded:
            self._unfinished = unfinished

    def _note(self, step: RunStep) -> None:
        self._is_replaying = step.held is None
