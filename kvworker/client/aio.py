"""The asynchronous facade: the same methods as coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import closing
from functools import update_wrapper
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

from celery.canvas import Signature

from kvworker.client.base import KeyValueOperations, check_timeout
from kvworker.client.calls import call_of
from kvworker.client.coalescing import MAX_DELAY_SECONDS
from kvworker.client.dispatcher import Dispatcher, PendingReply
from kvworker.client.pipeline import LEFT_BY_AN_ERROR, Collector
from kvworker.client.sync import KeyValueStore
from kvworker.model import OperationResult
from kvworker.settings import Settings
from kvworker.tools import Tool, find_tool

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class AsyncPendingResult:
    """A submitted operation whose result comes through the queue."""

    def __init__(self, reply: PendingReply, dispatcher: Dispatcher) -> None:
        self._reply = reply
        self._dispatcher = dispatcher

    @property
    def operation_id(self) -> str:
        """The caller's idempotency key, or the task's id."""
        return self._reply.operation_id

    async def result(self, timeout: float | None = None) -> Any:
        """The operation's result, within ``timeout`` seconds, or else by the message's deadline.

        Raises what ``kvworker.client.sync.QueuedResult.result`` raises.
        """
        self._dispatcher.check_not_nested()
        wait_seconds = check_timeout(timeout, self._reply.remaining_seconds())
        if self._reply.future.done():  # though its time be over
            return self._reply.outcome(self._reply.future.result())
        # Shielded: the reply outlives this wait, so that it may be asked for again.
        waiter = asyncio.shield(asyncio.wrap_future(self._reply.future))
        timer = self._flush_timer()
        try:
            meta = await asyncio.wait_for(waiter, wait_seconds)
        except TimeoutError:
            raise self._reply.timed_out() from None
        finally:
            if timer:
                timer.cancel()
                # A cancelled call goes too, rather than later, after others of its caller's.
                if not self._reply.future.done():
                    self._dispatcher.flush_coalesced()
        return self._reply.outcome(meta)

    def _flush_timer(self) -> asyncio.TimerHandle | None:
        """What has a call that waits for others sent after a moment."""
        if not self._reply.is_held:
            return None
        self._reply.is_held = False
        return asyncio.get_running_loop().call_later(MAX_DELAY_SECONDS, self._dispatcher.flush_coalesced)


def _coroutine(
    method: Callable[Concatenate[KeyValueOperations, _Arguments], _Result],
) -> Callable[Concatenate[AsyncKeyValueStore, _Arguments], Coroutine[Any, Any, _Result]]:
    """The method of the synchronous facades, awaiting its result: one definition for both."""

    async def run(store: AsyncKeyValueStore, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return cast(_Result, await store.call_tool(*call_of(method, *args, **kwargs)))

    update_wrapper(run, method)
    return run


class AsyncPipeline(Collector):
    """The pipeline of the asynchronous store; ``kvworker.client.pipeline`` tells all about it."""

    async def flush(self) -> None:
        """Send what is collected, and await all that was sent, as ``kvworker.client.pipeline.Pipeline.flush`` does."""
        with closing(self.flushing()) as flushing:
            for news, seconds in flushing:
                await asyncio.wait([asyncio.wrap_future(news)], timeout=seconds)

    async def __aenter__(self) -> Self:
        self.check_open()
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *exc_info: object) -> None:
        try:
            if exc_type is None:
                await self.flush()
        finally:
            self.end(LEFT_BY_AN_ERROR)


class AsyncKeyValueStore:
    """The key-value store, through the queue, for asyncio programs; see ``KeyValueStore`` about ``persona``.

    ``timeout`` is in seconds and bounds the whole call; None is the configured default. Sending and
    reading happen in the store's own threads, so the event loop is never blocked.
    """

    def __init__(self, settings: Settings, persona: str | None = None) -> None:
        self.settings = settings
        self._store = KeyValueStore(settings, persona)

    @classmethod
    def from_config(cls, path: str | Path | None = None, *, persona: str | None = None) -> Self:
        """The store that a configuration file describes; without a path, the one KVWORKER_CONFIG names.

        Raises:
            ConfigurationError: the file is missing or wrong.
        """
        return cls(Settings.load(path), persona)

    @property
    def persona(self) -> str | None:
        """Who calls, where policies are configured."""
        return self._store.persona

    def as_persona(self, persona: str) -> Self:
        """A view of this store for a persona, as ``KeyValueStore.as_persona`` gives it."""
        view = object.__new__(type(self))
        vars(view).update(vars(self), _store=self._store.as_persona(persona))
        return view

    get = _coroutine(KeyValueOperations.get)
    set = _coroutine(KeyValueOperations.set)
    delete = _coroutine(KeyValueOperations.delete)
    increment = _coroutine(KeyValueOperations.increment)
    touch = _coroutine(KeyValueOperations.touch)
    persist = _coroutine(KeyValueOperations.persist)
    list_keys = _coroutine(KeyValueOperations.list_keys)
    list_namespaces = _coroutine(KeyValueOperations.list_namespaces)
    clear = _coroutine(KeyValueOperations.clear)
    usage = _coroutine(KeyValueOperations.usage)
    set_quota = _coroutine(KeyValueOperations.set_quota)
    batch = _coroutine(KeyValueOperations.batch)

    def pipeline(
        self, *, idempotency_key: str | None = None, raise_on_error: bool = True, timeout: float | None = None
    ) -> AsyncPipeline:
        """A pipeline, to use with ``async with``; see ``KeyValueStore.pipeline``."""
        return AsyncPipeline(self._store, idempotency_key, raise_on_error=raise_on_error, timeout=timeout)

    async def call(self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None) -> dict[str, Any]:
        """Run a tool by its name (``kv_get`` …): arguments as a dict in, the result as a dict out."""
        return (await self.call_tool(find_tool(tool), arguments, timeout)).to_dict()

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and return its result."""
        self._store.check_may_wait()
        call = AsyncPendingResult(*self._store.send(tool, arguments, timeout, may_wait=False, may_coalesce=True))
        result: OperationResult = await call.result()
        return result

    async def submit(
        self, tool: str, arguments: Mapping[str, Any], *, timeout: float | None = None
    ) -> AsyncPendingResult:
        """Start an operation now, to await its result later; ``timeout`` is the message's deadline."""
        return self._submit(find_tool(tool), arguments, timeout)

    def signature(self, tool: str, arguments: Mapping[str, Any], *, valid_seconds: float | None = None) -> Signature:
        """A Celery signature, as ``KeyValueStore.signature`` makes it."""
        return self._store.signature(tool, arguments, valid_seconds=valid_seconds)

    async def close(self) -> None:
        """Stop the threads and close the connections of this process."""
        await asyncio.to_thread(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _submit(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> AsyncPendingResult:
        return AsyncPendingResult(*self._store.send(tool, arguments, timeout, may_wait=False))
