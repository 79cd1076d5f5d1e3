"""What a caller of a durable step does, as generators that threads and coroutines drive alike.

Each generator yields an action and is sent its result, or thrown its error. Nothing here waits or calls anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, cast

from kvworker.durable.holders import PASSING_FAILURES
from kvworker.durable.step_actions import Action, Ask, Call, Ended, HeldStep, Hold, LetGo, Pause, Steps
from kvworker.durable.step_options import Done, NotDone, StepRequest, UnknownStep
from kvworker.errors import (
    EffectUnknownError,
    InvalidRequestError,
    OperationRefusedError,
    QuotaExceededError,
    StepInProgressError,
    StepUnrecordedError,
    UnknownOutcomeError,
    UnsupportedMessageError,
    ValueSerializationError,
)
from kvworker.model import EncodedValue, JSONValue, StepBeginResult, StepStatusResult

#: A begin whose answer was lost is repeated with its operation id, this many times in all.
_BEGIN_ATTEMPTS: Final = 3
_FIRST_PAUSE_SECONDS: Final = 0.02
_MAX_PAUSE_SECONDS: Final = 1.0
#: The longest time for which the store is asked to mark a step unknown when its function has failed.
_GIVE_UP_SECONDS: Final = 2.0


def enter(request: StepRequest, *, may_wait: bool) -> Generator[Action, Any, HeldStep | Ended]:
    """Reserve a step, wait for its outcome, or settle it if it is unknown.

    Raises:
        StepInProgressError: Another caller still holds it.
        EffectUnknownError: It is unknown, and ``on_unknown`` is None.
        StepConflictError: It was begun with other arguments.
    """
    deadline = time.monotonic() + (request.options.wait_seconds if may_wait else 0.0)
    found = yield from begin(request, None)
    return (yield from settle(request, found, deadline))


def settle(
    request: StepRequest, found: HeldStep | StepBeginResult, deadline: float
) -> Generator[Action, Any, HeldStep | Ended]:
    """Go on from the answer of a begin; see ``enter``."""
    while isinstance(found, StepBeginResult):
        known = yield from _wait(request, found, deadline)
        if isinstance(known, Ended):
            return known
        found = yield from begin(request, known)
    yield Hold(found)
    if found.taken_from is not None and callable(function := request.options.on_unknown):
        try:
            answer = yield from _reconcile(found, function)
        except GeneratorExit:
            raise
        except BaseException:
            yield from give_up(found)
            raise
        if isinstance(answer, Done):
            yield from finish(found, "done", answer.result)
            return Ended("done", answer.result)
    return found


def _wait(
    request: StepRequest, found: StepBeginResult | StepStatusResult, deadline: float
) -> Generator[Action, Any, Ended | StepBeginResult | StepStatusResult | None]:
    """Wait for a step's end. Return it, or the unknown step to take over, or None if the step can begin again."""
    namespace, key = request.name
    pause = _FIRST_PAUSE_SECONDS
    while not _is_known(found):
        # A replayed begin of a step that has ended has no value: its status has it.
        if found.state == "in_progress":
            left = deadline - time.monotonic()
            if left <= 0:
                raise _in_progress(request, found)
            yield Pause(min(pause, left))
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
        found = yield Call("kv_step_status", {"namespace": namespace, "key": key}, request.options.timeout)
    if found.state == "absent":
        return None
    if found.state != "unknown":
        return Ended(found.state, found.value, found.unrecorded)
    if request.options.on_unknown is None:
        raise EffectUnknownError(namespace, key, found.holder or "", found.token or 0)
    return found


def _is_known(found: StepBeginResult | StepStatusResult) -> bool:
    return found.has_value or found.unrecorded is not None or found.state in {"unknown", "absent"}


def _in_progress(request: StepRequest, found: StepBeginResult | StepStatusResult) -> StepInProgressError:
    return StepInProgressError(*request.name, found.holder or "", found.lease_seconds or 0.0)


def begin(
    request: StepRequest, unknown: StepBeginResult | StepStatusResult | None
) -> Generator[Action, Any, HeldStep | StepBeginResult]:
    """Begin a step, or take over an unknown one. If that is interrupted, the step is not left reserved."""
    try:
        return (yield from _begin(request, unknown))
    except (GeneratorExit, OperationRefusedError, InvalidRequestError):
        raise
    except BaseException:
        yield from _withdraw(request, "released" if unknown is None else "unknown")
        raise


def _withdraw(request: StepRequest, state: str) -> Steps:
    """End the step with this state if a begin without an answer reserved it: its function has not run."""
    namespace, key = request.name
    step = {"namespace": namespace, "key": key}
    try:
        found = yield Call("kv_step_status", step, _GIVE_UP_SECONDS)
        if found.holder == request.holder:
            yield Call("kv_step_finish", {**step, "token": found.token, "state": state}, _GIVE_UP_SECONDS)
    except (OperationRefusedError, *PASSING_FAILURES):
        return


def _begin(
    request: StepRequest, unknown: StepBeginResult | StepStatusResult | None
) -> Generator[Action, Any, HeldStep | StepBeginResult]:
    """Begin a step, or take over an unknown one."""
    arguments = begin_arguments(request)
    if unknown is not None:
        arguments["takeover_token"] = unknown.token
    result, sent_at = yield from ask("kv_step_begin", arguments, request.options.timeout)
    return (yield from begun(request, result, sent_at, unknown))


def ask(tool: str, arguments: Mapping[str, Any], timeout: float | None) -> Generator[Action, Any, tuple[Any, float]]:
    """Return the answer of a call and when it was sent. A lost answer is asked for again with the operation id."""
    attempt = 1
    while True:
        sent_at = time.monotonic()
        try:
            return (yield Call(tool, arguments, timeout)), sent_at
        except UnknownOutcomeError as error:
            if attempt == _BEGIN_ATTEMPTS or not error.operation_id:
                raise
            arguments = {**arguments, "idempotency_key": error.operation_id}
        yield Pause(_FIRST_PAUSE_SECONDS * attempt)
        attempt += 1


def begin_arguments(request: StepRequest) -> dict[str, Any]:
    """Return the arguments of a begin."""
    namespace, key = request.name
    return {
        "namespace": namespace,
        "key": key,
        "holder": request.holder,
        "arguments": request.arguments,
        "lease_seconds": request.options.lease_seconds,
    }


def begun(
    request: StepRequest,
    result: StepBeginResult,
    sent_at: float,
    unknown: StepBeginResult | StepStatusResult | None = None,
) -> Generator[Action, Any, HeldStep | StepBeginResult]:
    """Return the step if a begin that was sent at that moment reserved it, or else the answer."""
    # The holder's name is this attempt's own, and its function has not run: the answer of an earlier call was lost.
    is_own = result.state == "in_progress" and result.holder == request.holder
    if result.state != "reserved" and not is_own:
        return result
    step = HeldStep(request, result.token or 0, sent_at + request.options.lease_seconds)
    if unknown is not None:
        step.taken_from = UnknownStep(
            *request.name, request.label, unknown.holder or "", unknown.token or 0, step.token
        )
    if result.replayed or is_own:
        # Its lease began with the attempt whose answer was lost. A renewal proves that the step is still held.
        sent_at = time.monotonic()
        yield Call("kv_step_renew", step.renewal(), request.options.timeout)
        step.renewed(sent_at)
    return step


def _reconcile(step: HeldStep, function: Callable[[UnknownStep], Any]) -> Generator[Action, Any, Done | NotDone]:
    answer = yield Ask(function, cast(UnknownStep, step.taken_from))
    if not isinstance(answer, Done | NotDone):
        raise InvalidRequestError(
            f"on_unknown must return done(result) or not_done of kvworker.durable, not a {type(answer).__name__}"
        )
    return answer


def finish(step: HeldStep, state: str, value: JSONValue = None) -> Steps:
    """Record the outcome of a held step. It is sent again until it is answered or the lease's length has passed.

    Raises:
        StepLostError: Another caller took over. The outcome was not recorded.
        StepUnrecordedError: The end was recorded, but its value could not be.
        EffectUnknownError: Whether it was recorded is unknown. The error of the last attempt is its cause.
    """
    refuse_inherited(step)
    try:
        yield from _send(step, finish_arguments(step, state, value))
    except UnsupportedMessageError:
        raise
    except (QuotaExceededError, InvalidRequestError) as error:
        why = _why_unrecorded(error)
        arguments = finish_arguments(step, state, None)
        yield from _send(step, {**arguments, "unrecorded": why})
        raise StepUnrecordedError(*step.request.name, state, why) from error
    finally:
        yield LetGo(step)


def finish_arguments(step: HeldStep, state: str, value: JSONValue) -> dict[str, Any]:
    """Return the arguments of a finish.

    Raises:
        ValueSerializationError: The value is not a JSON value.
    """
    arguments = {**step.arguments(), "state": state}
    if state in {"done", "failed"}:
        arguments |= {"value": EncodedValue.of(value), "ttl_seconds": step.request.options.ttl_seconds}
    return arguments


def _why_unrecorded(error: QuotaExceededError | InvalidRequestError) -> str:
    if isinstance(error, QuotaExceededError):
        return "quota"
    return "not_json" if isinstance(error, ValueSerializationError) else "too_large"


def _send(step: HeldStep, arguments: Mapping[str, Any]) -> Steps:
    give_up_at = time.monotonic() + step.request.options.lease_seconds
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            yield Call("kv_step_finish", arguments, step.request.options.timeout)
        except PASSING_FAILURES as error:
            if isinstance(error, UnknownOutcomeError) and error.operation_id:
                arguments = {**arguments, "idempotency_key": error.operation_id}
            if time.monotonic() + pause >= give_up_at:
                if arguments["state"] == "released":
                    raise
                raise EffectUnknownError(*step.request.name, step.request.holder, step.token) from error
            yield Pause(pause)
            pause = min(2 * pause, _MAX_PAUSE_SECONDS)
        else:
            return


def give_up(step: HeldStep) -> Steps:
    """Say that the holder does not know the outcome. If that cannot be recorded, the lease just runs out."""
    yield LetGo(step)
    if step.is_inherited:
        return
    try:
        yield Call("kv_step_finish", {**step.arguments(), "state": "unknown"}, _GIVE_UP_SECONDS)
    except (OperationRefusedError, *PASSING_FAILURES):
        return


def refuse_inherited(step: HeldStep) -> None:
    """Check that this process holds the step itself.

    Raises:
        InvalidRequestError: It is a forked child.
    """
    if step.is_inherited:
        raise InvalidRequestError("a forked child does not hold its parent's durable step")
