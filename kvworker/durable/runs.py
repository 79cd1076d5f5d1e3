"""Runs: plain functions that are called again after a crash, get the recorded results, and continue."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from kvworker.client.base import PendingResult
from kvworker.durable.heartbeat import heartbeat
from kvworker.durable.run_steps import HOLD_BACK_SECONDS, RunState, RunStep, Unfinished, check_call
from kvworker.durable.step_actions import LetGo, Steps
from kvworker.durable.step_drivers import AsyncDriver, drive
from kvworker.durable.step_options import StepOptions
from kvworker.errors import KVStoreError

if TYPE_CHECKING:
    from kvworker.client.aio import AsyncKeyValueStore
    from kvworker.client.base import KeyValueOperations

logger = logging.getLogger(__name__)


class Run(RunState):
    """A run of steps that each happen at most once; ``KeyValueStore.run`` makes it.

    In a ``with`` block the end of a step is recorded in the message that begins the next one, or on its own if none
    begins within 50 ms. Outside of one each step is recorded before ``step`` returns.

    Args:
        store: The store that keeps the steps.
        run_id: The run's name.
        options: The options of its steps.
    """

    def __init__(self, store: KeyValueOperations, run_id: str, options: StepOptions) -> None:
        super().__init__(run_id, options)
        self._store = store
        #: The finish of the step that is held back, if it is to be sent by itself after a moment.
        self._sent: Future[PendingResult] | None = None

    def step(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function as the run's next step, or return the result that an earlier execution recorded.

        Every execution must perform the same steps with the same arguments in the same order. What decides about them,
        such as the time or a model's answer, must come from a step.

        Args:
            name: The step's name.
            function: Performs the step and returns a JSON value.
            args: Its arguments, which must be JSON values.
            kwargs: Its arguments by name.

        Raises:
            StepConflictError: An earlier execution performed another step here, or with other arguments.
            EffectUnknownError: An earlier execution ended within this step, and ``on_unknown`` is None.
            StepInProgressError: Another process is performing this run.
            InvalidRequestError: Another step of this run is being performed.
        """
        check_call(function, args, kwargs)
        with self._turn_of(name):
            request = self._next_request(name, args, kwargs)
            unfinished: Unfinished | None = None
            try:
                unfinished = self._take_unfinished()
                step = RunStep(request, unfinished, reads_first=self._is_replaying)
                drive(self._store, step.entering())
            except BaseException:
                self._not_entered(unfinished)
                raise
            self._note(step)
            if step.held is None:
                return step.result
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                drive(self._store, step.leaving(error))
                raise
            unfinished = step.hold_back(result) if self._holds_back else None
            if unfinished is None:
                drive(self._store, step.finishing(result))
            else:
                self._hold_back(unfinished)
            return result

    def _hold_back(self, unfinished: Unfinished) -> None:
        self._unfinished, self._sent = unfinished, (sent := Future[PendingResult]())
        heartbeat.get().call_later(unfinished, HOLD_BACK_SECONDS, partial(self._send, unfinished, sent))

    def _send(self, unfinished: Unfinished, sent: Future[PendingResult]) -> None:
        """Record the outcome by itself, in the heartbeat's thread, which does not wait for the answer."""
        try:
            sent.set_result(self._store.submit("kv_step_finish", unfinished.arguments))
        except BaseException as error:  # noqa: BLE001 - the run's own thread tries again
            sent.set_exception(error)

    def _take_unfinished(self) -> Unfinished | None:
        """Return the step whose end is still held back. If it was sent meanwhile, wait until it is recorded."""
        unfinished, self._unfinished = self._unfinished, None
        sent, self._sent = self._sent, None
        if unfinished is None or sent is None or unfinished.step.is_inherited:
            return unfinished
        if heartbeat.get().forget(unfinished):
            return unfinished
        try:
            sent.result().result()
        except KVStoreError:
            drive(self._store, unfinished.finishing())
        else:
            drive(self._store, _letting_go(unfinished))
        return None

    def __enter__(self) -> Self:
        self._holds_back = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self._holds_back = False
        try:
            unfinished = self._take_unfinished()
            if unfinished is not None and not unfinished.step.is_inherited:
                drive(self._store, unfinished.finishing())
        except KVStoreError as failure:
            if error is None:
                raise
            logger.warning("the end of a run's last step was not recorded: %s", type(failure).__name__)
        return False


class AsyncRun(RunState):
    """A run of coroutine functions; ``AsyncKeyValueStore.run`` makes it. See ``Run``.

    Args:
        store: The store that keeps the steps.
        run_id: The run's name.
        options: The options of its steps.
    """

    def __init__(self, store: AsyncKeyValueStore, run_id: str, options: StepOptions) -> None:
        super().__init__(run_id, options)
        self._driver = AsyncDriver(store)
        self._timer: asyncio.TimerHandle | None = None
        self._recording: asyncio.Task[Any] | None = None

    async def step(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Await a function as the run's next step, or return the recorded result; see ``Run.step``.

        A step that is lost while its function runs is cancelled.
        """
        check_call(function, args, kwargs)
        with self._turn_of(name):
            request = self._next_request(name, args, kwargs)
            unfinished: Unfinished | None = None
            try:
                unfinished = await self._take_unfinished()
                step = RunStep(request, unfinished, reads_first=self._is_replaying)
                await self._driver.drive(step.entering())
            except BaseException:
                self._not_entered(unfinished)
                raise
            self._note(step)
            if step.held is None:
                return step.result
            try:
                made = function(*args, **kwargs)
                result = await made if inspect.isawaitable(made) else made
            except BaseException as error:
                lost_error = self._driver.loss_behind(error)
                await self._driver.drive(step.leaving(error))
                if lost_error is not None:
                    raise lost_error from None
                raise
            self._driver.spare_the_holder()
            unfinished = step.hold_back(result) if self._holds_back else None
            if unfinished is None:
                await self._driver.drive(step.finishing(result))
            else:
                self._unfinished = unfinished
                self._timer = asyncio.get_running_loop().call_later(HOLD_BACK_SECONDS, self._record, unfinished)
            return result

    def _record(self, unfinished: Unfinished) -> None:
        self._timer = None
        self._recording = asyncio.ensure_future(self._driver.drive(unfinished.finishing()))
        # The next step or the end of the block raises its error.
        self._recording.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _take_unfinished(self) -> Unfinished | None:
        unfinished, self._unfinished = self._unfinished, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            return unfinished
        if self._recording is not None:
            recording, self._recording = self._recording, None
            await asyncio.shield(recording)
            return None
        return unfinished

    async def __aenter__(self) -> Self:
        self._holds_back = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Literal[False]:
        self._holds_back = False
        try:
            unfinished = await self._take_unfinished()
            if unfinished is not None:
                await self._driver.drive(unfinished.finishing())
        except KVStoreError as failure:
            if error is None:
                raise
            logger.warning("the end of a run's last step was not recorded: %s", type(failure).__name__)
        return False


def _letting_go(unfinished: Unfinished) -> Steps:
    yield LetGo(unfinished.step)
