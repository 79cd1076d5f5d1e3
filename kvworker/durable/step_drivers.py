"""Performs what the generators of ``kvworker.durable.step_protocol`` yield, in threads and on event loops."""

from __future__ import annotations

import asyncio
import inspect
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from kvworker.durable.heartbeat import RENEWAL_PART, heartbeat, renewal_timeout
from kvworker.durable.step_actions import Action, Ask, Call, HeldStep, Hold, LetGo, Pause, Steps
from kvworker.errors import InvalidValueTypeError, KVStoreError, StepLostError
from kvworker.tools import find_tool

if TYPE_CHECKING:
    from kvworker.client.aio import AsyncKeyValueStore
    from kvworker.client.base import KeyValueOperations

_MIN_RETRY_SECONDS: Final = 0.05
#: The tools that record an outcome.
_RECORDING: Final = frozenset({"kv_step_finish", "kv_batch"})


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


def _perform(store: KeyValueOperations, action: Action) -> Any:
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
        #: The task that a loss of the step cancels.
        self._holder: asyncio.Task[Any] | None = None
        self._lost_error: StepLostError | None = None

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

    async def _perform(self, action: Action) -> Any:
        if isinstance(action, Call):
            return await self._call(action)
        if isinstance(action, Pause):
            return await asyncio.sleep(action.seconds)
        if isinstance(action, Ask):
            answer = action.function(action.step)
            return await answer if inspect.isawaitable(answer) else answer
        if isinstance(action, Hold):
            self._holder = asyncio.current_task()
            self._renewal = asyncio.create_task(self._keep_renewing(action.step), name="kvworker-step")
        if isinstance(action, LetGo) and self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
        return None

    async def _call(self, action: Call) -> Any:
        call = asyncio.ensure_future(self._store.call_tool(find_tool(action.tool), action.arguments, action.timeout))
        if action.tool not in _RECORDING:
            return await call
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            # An outcome that is known is recorded all the same.
            with suppress(KVStoreError):
                await call
            raise

    def spare_the_holder(self) -> None:
        """Cancel nothing if the step is lost from now on: its function has ended."""
        self._holder = None

    def loss_behind(self, error: BaseException | None) -> StepLostError | None:
        """Return the loss of the step if it caused this cancellation, and only it; the task is then not cancelled."""
        task = asyncio.current_task()
        if not isinstance(error, asyncio.CancelledError) or self._lost_error is None or task is None:
            return None
        return self._lost_error if task.uncancel() == 0 else None

    async def _keep_renewing(self, step: HeldStep) -> None:
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
                if self._holder is not None:
                    self._lost_error = StepLostError(*step.request.name, step.token)
                    self._holder.cancel()
                return
            except KVStoreError:
                continue
            step.renewed(sent_at)
