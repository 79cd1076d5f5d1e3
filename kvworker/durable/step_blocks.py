"""Durable steps as ``with`` blocks, for threads and for coroutines."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from kvworker.durable.recorded_errors import error_again, recorded_error
from kvworker.durable.step_actions import Ended, HeldStep, LetGo, Steps
from kvworker.durable.step_drivers import AsyncDriver, drive
from kvworker.durable.step_options import StepRequest
from kvworker.durable.step_protocol import enter, finish, give_up, refuse_inherited
from kvworker.errors import (
    InvalidRequestError,
    StepUnrecordedError,
)
from kvworker.model import JSONValue

if TYPE_CHECKING:
    from kvworker.client.aio import AsyncKeyValueStore
    from kvworker.client.base import KeyValueOperations

#: The steps that this thread or task is in, the innermost last. Waiting for one of them would be waiting for oneself.
_entered: Final[ContextVar[tuple[StepState, ...]]] = ContextVar("durable_steps", default=())


class StepState:
    """What a block knows about its durable step.

    Args:
        request: The attempt at the step.
    """

    def __init__(self, request: StepRequest) -> None:
        # A copy has its own holder's name, by which an attempt recognizes what it reserved itself.
        self._request = replace(request)
        self._held: HeldStep | None = None
        self._ended: Ended | None = None
        self._is_settled = False

    @property
    def key(self) -> str:
        """The step's key."""
        return self._request.key

    @property
    def needed(self) -> bool:
        """True if this block holds the step and must perform the effect. False if it has ended before."""
        return self._held is not None and not self._is_settled

    @property
    def token(self) -> int:
        """The fencing token, larger than those of all earlier holders. Pass it on to whatever can refuse a smaller one.

        Raises:
            InvalidRequestError: This block does not hold the step.
        """
        return self._must_hold().token

    @property
    def lost(self) -> bool:
        """True if another caller may have taken over by now. Begin no effect then."""
        return self._held is not None and self._held.lost.is_set()

    @property
    def result(self) -> Any:
        """The recorded result.

        Raises:
            StepUnrecordedError: The effect happened, but its result could not be recorded.
            StepFailedError: The step failed. If ``record`` declares the class of its error, that error is raised.
            InvalidRequestError: The step has not ended.
        """
        ended = self._ended
        if ended is None:
            raise InvalidRequestError("this durable step has no result yet; call finish in its block")
        if ended.unrecorded is not None:
            raise StepUnrecordedError(*self._request.name, ended.state, ended.unrecorded)
        if ended.state == "failed":
            raise error_again(self._request.name, ended.value, self._request.options.recorded)
        return ended.value

    def _entering(self) -> Steps:
        if self._held is not None:
            raise InvalidRequestError("this durable step was entered before; make another one with store.step()")
        may_wait = all(step._request.name != self._request.name for step in _entered.get())
        return enter(self._request, may_wait=may_wait)

    def _has_entered(self, found: HeldStep | Ended) -> None:
        if isinstance(found, Ended):
            self._ended = found
            _ = self.result  # A recorded error is raised before the block.
        else:
            self._held = found
            _entered.set((*_entered.get(), self))

    def _has_left(self) -> None:
        _entered.set(tuple(step for step in _entered.get() if step is not self))

    def _must_hold(self) -> HeldStep:
        if self._held is None:
            raise InvalidRequestError(
                "this durable step is not held: it had ended before, or its block was not entered"
            )
        return self._held

    def _finishing(self, result: JSONValue) -> Steps:
        held = self._must_hold()
        if self._is_settled:
            raise InvalidRequestError("this durable step was finished before")
        refuse_inherited(held)
        self._is_settled = True
        yield from finish(held, "done", result)
        self._ended = Ended("done", result)

    def _releasing(self) -> Steps:
        held = self._must_hold()
        refuse_inherited(held)
        self._is_settled = True
        yield from finish(held, "released")

    def _settling_elsewhere(self) -> Steps:
        self._is_settled = True
        yield LetGo(self._must_hold())

    def _leaving(self, error: BaseException | None) -> Steps:
        held = self._held
        if held is None:
            return
        self._has_left()
        if self._is_settled or held.is_inherited:
            return
        if error is None:
            yield from self._finishing(None)
            return
        self._is_settled = True
        options = self._request.options
        if isinstance(error, options.recorded):
            with suppress(StepUnrecordedError):
                yield from finish(held, "failed", recorded_error(error))
        elif isinstance(error, options.released):
            yield from finish(held, "released")
        else:
            yield from give_up(held)


def current_step() -> StepState:
    """Return the step whose function or block this code is in, for its ``key``, its ``token`` and ``lost``.

    Raises:
        InvalidRequestError: There is none in this thread or task.
    """
    entered = _entered.get()
    if not entered:
        raise InvalidRequestError("no durable step is being performed in this thread or task")
    return entered[-1]


class DurableStep(StepState):
    """A durable step as a ``with`` block; ``KeyValueStore.step`` makes it.

    The block runs while the step is held, or if it has ended before: ask ``needed``. ``finish`` records the result. A
    block that ends without it records None. An error that ``record`` declares ends the step as failed, one that
    ``release`` declares releases it, and any other makes it unknown, since nobody can know whether the effect happened.

    Args:
        store: The store that keeps the step.
        request: The attempt at the step.
    """

    def __init__(self, store: KeyValueOperations, request: StepRequest) -> None:
        super().__init__(request)
        self._store = store

    def finish(self, result: JSONValue = None) -> None:
        """Record the effect's result.

        Raises:
            StepLostError: Another caller took over, so the result was refused.
            StepUnrecordedError: The end was recorded, but the result is too large or not a JSON value.
        """
        drive(self._store, self._finishing(result))

    def release(self) -> None:
        """Release the step without an effect, so that it may run again."""
        drive(self._store, self._releasing())

    def settled(self) -> None:
        """Note that the caller has finished the step itself, for example in a batch."""
        drive(self._store, self._settling_elsewhere())

    def __enter__(self) -> Self:
        self._has_entered(drive(self._store, self._entering()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        drive(self._store, self._leaving(error))
        return False


class AsyncDurableStep(StepState):
    """A durable step as an ``async with`` block; ``AsyncKeyValueStore.step`` makes it. See ``DurableStep``.

    A block that loses the step is cancelled, and leaving it raises ``StepLostError``.

    Args:
        store: The store that keeps the step.
        request: The attempt at the step.
    """

    def __init__(self, store: AsyncKeyValueStore, request: StepRequest) -> None:
        super().__init__(request)
        self._driver = AsyncDriver(store)

    async def finish(self, result: JSONValue = None) -> None:
        """Record the effect's result; see ``DurableStep.finish``."""
        await self._driver.drive(self._finishing(result))

    async def release(self) -> None:
        """Release the step without an effect, so that it may run again."""
        await self._driver.drive(self._releasing())

    async def settled(self) -> None:
        """Note that the caller has finished the step itself, for example in a batch."""
        await self._driver.drive(self._settling_elsewhere())

    async def __aenter__(self) -> Self:
        self._has_entered(await self._driver.drive(self._entering()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        lost_error = self._driver.loss_behind(error)
        await self._driver.drive(self._leaving(error))
        if lost_error is not None:
            raise lost_error from None
        return False
