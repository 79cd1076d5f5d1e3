"""Durable steps as ``with`` blocks, for threads and for coroutines."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import suppress
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from kvworker.durable import step_protocol
from kvworker.durable.heartbeat import RENEWAL_PART, heartbeat, renewal_timeout
from kvworker.durable.recorded_errors import error_again, recorded_error
from kvworker.durable.step_options import StepRequest
from kvworker.durable.step_protocol import Ask, Call, Ended, HeldStep, Hold, LetGo, Pause, Steps
from kvworker.errors import (
    InvalidRequestError,
    InvalidValueTypeError,
    KVStoreError,
    StepLostError,
    StepUnrecordedError,
)
from kvworker.model import JSONValue
from kvworker.tools import find_tool

if TYPE_CHECKING:
    from kvworker.client.aio import AsyncKeyValueStore
    from kvworker.client.base import KeyValueOperations

#: The steps that this thread or task is in. Waiting for one of them would be waiting for oneself.
_entered: Final[ContextVar[frozenset[tuple[str, str]]]] = ContextVar("durable_steps", default=frozenset())
_MIN_RETRY_SECONDS: Final = 0.05


class StepState:
    """What a block knows about its durable step.

    Args:
        request: The attempt at the step.
    """

    def __init__(self, request: StepRequest) -> None:
        self._request = request
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
        may_wait = self._request.name not in _entered.get()
        return step_protocol.enter(self._request, may_wait=may_wait)

    def _has_entered(self, found: HeldStep | Ended) -> None:
        if isinstance(found, Ended):
            self._ended = found
            _ = self.result  # A recorded error is raised before the block.
        else:
            self._held = found
            _entered.set(_entered.get() | {self._request.name})

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
        step_protocol.refuse_inherited(held)
        self._is_settled = True
        yield from step_protocol.finish(held, "done", result)
        self._ended = Ended("done", result)

    def _releasing(self) -> Steps:
        held = self._must_hold()
        step_protocol.refuse_inherited(held)
        self._is_settled = True
        yield from step_protocol.finish(held, "released")

    def _settling_elsewhere(self) -> Steps:
        self._is_settled = True
        yield LetGo(self._must_hold())

    def _leaving(self, error: BaseException | None) -> Steps:
        held = self._held
        if held is None:
            return
        _entered.set(_entered.get() - {self._request.name})
        if self._is_settled or held.is_inherited:
            return
        if error is None:
            yield from self._finishing(None)
            return
        self._is_settled = True
        options = self._request.options
        if isinstance(error, options.recorded):
            with suppress(StepUnrecordedError):
                yield from step_protocol.finish(held, "failed", recorded_error(error))
        elif isinstance(error, options.released):
            yield from step_protocol.finish(held, "released")
        else:
            yield from step_protocol.give_up(held)


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
        cancelled_by_loss = isinstance(error, asyncio.CancelledError) and self._driver.has_cancelled
        await self._driver.drive(self._leaving(error))
        if cancelled_by_loss and self._held is not None:
            task = asyncio.current_task()
            if task is not None and task.uncancel() == 0:
                raise StepLostError(*self._request.name, self._held.token) from None
        return False


def drive(store: KeyValueOperations, steps: Steps) -> Any:
    """Perform the actions of a generator of ``kvworker.durable.step_protocol`` in this thread. Return its result."""
    try:
        action = next(steps)
        while True:
            try:
                answer = _perform(store, action)
            except BaseException as error:  # noqa: BLE001 - the generator decides
                action = steps.throw(error)
            else:
                action = steps.send(answer)
    except StopIteration as stop:
        return stop.value


def _perform(store: KeyValueOperations, action: step_protocol.Action) -> Any:
    if isinstance(action, Call):
        return store.call_tool(find_tool(action.tool), action.arguments, action.timeout)
    if isinstance(action, Pause):
        return time.sleep(action.seconds)
    if isinstance(action, Ask):
        return action.function(action.step)
    if isinstance(action, Hold):
        return heartbeat.get().hold(store, action.step)
    return heartbeat.get().forget(action.step)


class AsyncDriver:
    """Performs the actions of such a generator on the event loop, and renews the lease of the held step.

    Args:
        store: The store that keeps the steps.
    """

    def __init__(self, store: AsyncKeyValueStore) -> None:
        self._store = store
        self._renewal: asyncio.Task[None] | None = None
        #: Whether the task that holds the step was cancelled because it was lost.
        self.has_cancelled = False

    async def drive(self, steps: Steps) -> Any:
        """Perform the actions and return the generator's result."""
        try:
            action = next(steps)
            while True:
                try:
                    answer = await self._perform(action)
                except BaseException as error:  # noqa: BLE001 - the generator decides
                    action = steps.throw(error)
                else:
                    action = steps.send(answer)
        except StopIteration as stop:
            return stop.value

    async def _perform(self, action: step_protocol.Action) -> Any:
        if isinstance(action, Call):
            return await self._store.call_tool(find_tool(action.tool), action.arguments, action.timeout)
        if isinstance(action, Pause):
            return await asyncio.sleep(action.seconds)
        if isinstance(action, Ask):
            answer = action.function(action.step)
            return await answer if inspect.isawaitable(answer) else answer
        if isinstance(action, Hold):
            holder = asyncio.current_task()
            self._renewal = asyncio.create_task(self._keep_renewing(action.step, holder), name="kvworker-step")
        if isinstance(action, LetGo) and self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        return None

    async def _keep_renewing(self, step: HeldStep, holder: asyncio.Task[Any] | None) -> None:
        lease_seconds = step.request.options.lease_seconds
        while True:
            await asyncio.sleep(max(_MIN_RETRY_SECONDS, lease_seconds * RENEWAL_PART))
            sent_at = time.monotonic()
            if sent_at >= step.valid_until:
                step.lost.set()
            try:
                await self._store.call_tool(find_tool("kv_step_renew"), step.renewal(), renewal_timeout(step))
            except (StepLostError, InvalidValueTypeError):
                step.lost.set()
                if holder is not None:
                    self.has_cancelled = True
                    holder.cancel()
                return
            except KVStoreError:
                continue
            step.renewed(sent_at)
