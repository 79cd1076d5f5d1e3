"""The asynchronous facade: the same methods as coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from celery.canvas import Signature

from kvworker.client.calls import describe_call
from kvworker.client.coalescing import MAX_DELAY_SECONDS
from kvworker.client.dispatcher import Dispatcher
from kvworker.client.durable_methods import AsyncDurableMethods
from kvworker.client.lease_methods import AsyncLeaseMethods
from kvworker.client.methods import FacadeMethods
from kvworker.client.pending_reply import PendingReply
from kvworker.client.pipeline import AsyncPipeline
from kvworker.client.sync import KeyValueStore
from kvworker.client.timeouts import check_timeout
from kvworker.client.transport.wake_ups import PermitWatch
from kvworker.messaging.observer import CallObserver
from kvworker.model import OperationResult
from kvworker.settings import Settings
from kvworker.tools import Tool, find_tool

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class AsyncQueuedResult:
    """The result of an operation that was sent through the queue, to be awaited."""

    def __init__(self, reply: PendingReply, dispatcher: Dispatcher) -> None:
        self._reply = reply
        self._dispatcher = dispatcher

    @property
    def operation_id(self) -> str:
        """Your idempotency key, or else the task id. Repeat a call with it to apply it only once."""
        return self._reply.operation_id

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the operation's result and return it.

        Args:
            timeout: The longest wait in seconds. Without it the wait ends at the message's deadline.

        Raises:
            KVStoreError: The errors that ``kvworker.client.sync.QueuedResult.result`` raises.
        """
        self._dispatcher.check_not_nested()
        wait_seconds = check_timeout(timeout, self._reply.remaining_seconds())
        if self._reply.future.done():  # an answer that came in time counts, even if the deadline has passed since
            return self._reply.outcome(self._reply.future.result())
        # Shielded: a wait that ends must not cancel the reply, since you may wait for it again.
        waiter = asyncio.shield(asyncio.wrap_future(self._reply.future))
        timer = self._start_flush_timer()
        try:
            meta = await asyncio.wait_for(waiter, wait_seconds)
        except TimeoutError:
            raise self._reply.timeout_error() from None
        except asyncio.CancelledError as error:
            self._reply.note_interruption(error)
            raise
        finally:
            if timer:
                timer.cancel()
                # Even if cancelled: sent later, it could overtake a later call of the same caller.
                if not self._reply.future.done():
                    self._dispatcher.flush_held()
        return self._reply.outcome(meta)

    def _start_flush_timer(self) -> asyncio.TimerHandle | None:
        """Have a call that is held back sent after a moment. None if it is not held back."""
        if not self._reply.is_held:
            return None
        self._reply.is_held = False
        return asyncio.get_running_loop().call_later(MAX_DELAY_SECONDS, self._dispatcher.flush_held)


def _coroutine(
    method: Callable[Concatenate[FacadeMethods, _Arguments], _Result],
) -> Callable[Concatenate[AsyncKeyValueStore, _Arguments], Coroutine[object, None, _Result]]:
    """Turn a facade method into a coroutine with the same parameters and result.

    The coroutine's other types are not Any: with Any, mypy infers Any for ``asyncio.gather`` of different methods.
    """

    async def _run(store: AsyncKeyValueStore, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return cast(_Result, await store.call_tool(*describe_call(method, *args, **kwargs)))

    update_wrapper(_run, method)
    return _run


class AsyncKeyValueStore(AsyncDurableMethods, AsyncLeaseMethods):
    """The key-value store for asyncio programs, used through the queue.

    Messages are sent and read in the store's own threads, so the event loop is never blocked. ``timeout`` bounds a
    whole call, in seconds; None means the configured default.

    Args:
        settings: The configuration, its file, or a mapping in the file's layout.
        persona: The name under which its calls are checked. None means the default persona.
        observer: Observes each call; see ``KeyValueStore``.
    """

    def __init__(
        self,
        settings: Settings | str | Path | Mapping[str, Any],
        persona: str | None = None,
        *,
        observer: CallObserver | None = None,
    ) -> None:
        self.settings = Settings.of(settings)
        self._store = KeyValueStore(self.settings, persona, observer=observer)

    @classmethod
    def from_config(
        cls,
        path: str | Path | Mapping[str, Any] | None = None,
        *,
        persona: str | None = None,
        observer: CallObserver | None = None,
    ) -> Self:
        """Make the store that a configuration file describes.

        Args:
            path: The file, or a mapping in its layout. None means the file that ``Settings.load`` finds, which is also
                the one that commands use.
            persona: The name under which the store's calls are checked.
            observer: Observes each call.

        Raises:
            ConfigurationError: The file is missing or wrong.
        """
        return cls(Settings.of(path), persona, observer=observer)

    @property
    def persona(self) -> str | None:
        """The name under which calls are checked where policies are configured."""
        return self._store.persona

    def as_persona(self, persona: str) -> Self:
        """Return a view of this store for a persona; see ``KeyValueStore.as_persona``."""
        view = object.__new__(type(self))
        vars(view).update(vars(self), _store=self._store.as_persona(persona))
        return view

    get = _coroutine(FacadeMethods.get)
    set = _coroutine(FacadeMethods.set)
    delete = _coroutine(FacadeMethods.delete)
    increment = _coroutine(FacadeMethods.increment)
    touch = _coroutine(FacadeMethods.touch)
    persist = _coroutine(FacadeMethods.persist)
    acquire_permit = _coroutine(FacadeMethods.acquire_permit)
    renew_permit = _coroutine(FacadeMethods.renew_permit)
    release_permit = _coroutine(FacadeMethods.release_permit)
    rate_limit = _coroutine(FacadeMethods.rate_limit)
    append = _coroutine(FacadeMethods.append)
    merge = _coroutine(FacadeMethods.merge)
    get_and_delete = _coroutine(FacadeMethods.get_and_delete)
    step_begin = _coroutine(FacadeMethods.step_begin)
    step_renew = _coroutine(FacadeMethods.step_renew)
    step_finish = _coroutine(FacadeMethods.step_finish)
    step_status = _coroutine(FacadeMethods.step_status)
    list_keys = _coroutine(FacadeMethods.list_keys)
    list_namespaces = _coroutine(FacadeMethods.list_namespaces)
    clear = _coroutine(FacadeMethods.clear)
    usage = _coroutine(FacadeMethods.usage)
    set_quota = _coroutine(FacadeMethods.set_quota)
    batch = _coroutine(FacadeMethods.batch)

    def watch_permits(self, namespace: str, key: str, wake: Callable[[], object]) -> PermitWatch:
        """Call ``wake`` in another thread when a permit of a semaphore may be free."""
        return self._store.watch_permits(namespace, key, wake)

    def pipeline(
        self, *, idempotency_key: str | None = None, raise_on_error: bool = True, timeout: float | None = None
    ) -> AsyncPipeline:
        """Return a pipeline to use with ``async with``; see ``KeyValueStore.pipeline``."""
        return AsyncPipeline(self._store.unbounded(), idempotency_key, raise_on_error=raise_on_error, timeout=timeout)

    async def call(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """Run a tool by its name (``kv_get`` …), with its arguments as a dict, and return its result as a dict."""
        return (await self.call_tool(find_tool(tool), arguments, timeout)).to_dict()

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and return its result; see ``KeyValueOperations.call_tool``."""
        with self._store.watch(tool) as watch:
            self._store.check_may_wait()
            dispatcher = self._store.dispatcher()
            # The turn lasts until this coroutine has its result. Otherwise a busy event loop would send every call of a
            # burst before it delivers the first result.
            with await dispatcher.in_flight.turn_async(self._store.timeout_seconds(timeout)) as turn:
                turn.reply = self._store.send(tool, arguments, turn.seconds, may_wait=False, may_coalesce=True)
                result: OperationResult = await AsyncQueuedResult(turn.reply, dispatcher).result()
            watch.succeeded(result)
        return result

    async def submit(
        self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None
    ) -> AsyncQueuedResult:
        """Send an operation now and return its pending result.

        Args:
            tool: A tool's name (``kv_get`` …).
            arguments: The tool's arguments.
            timeout: The message's deadline in seconds from now. A worker does not start the operation after it.
        """
        dispatcher, found = self._store.dispatcher(), find_tool(tool)
        with self._store.watch(found) as watch:
            with await dispatcher.in_flight.turn_async(self._store.timeout_seconds(timeout)) as turn:
                turn.reply = reply = self._store.send(found, arguments, turn.seconds, may_wait=False)
            watch.submitted(reply)
        return AsyncQueuedResult(reply, dispatcher)

    def signature(self, tool: str, arguments: Mapping[str, Any], *, valid_seconds: float | None = None) -> Signature:
        """Return a Celery signature; see ``KeyValueStore.signature``."""
        return self._store.signature(tool, arguments, valid_seconds=valid_seconds)

    async def close(self) -> None:
        """Stop the threads and close the connections of this process."""
        await asyncio.to_thread(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
