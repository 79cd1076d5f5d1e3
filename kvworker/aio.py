"""The asynchronous facade: the same methods as coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

from celery.canvas import Signature

from kvworker.client import KeyValueStore
from kvworker.dispatch import Dispatcher, PendingReply
from kvworker.facade import check_timeout
from kvworker.model import DeleteResult, GetResult, IncrementResult, JSONValue, OperationResult, SetResult
from kvworker.settings import Settings
from kvworker.wire import Tool, check_arguments, find_tool


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

        Raises what ``kvworker.client.QueuedResult.result`` raises.
        """
        self._dispatcher.check_not_nested()
        wait_seconds = check_timeout(timeout, self._reply.remaining_seconds())
        # Shielded: the reply outlives this wait, so that it may be asked for again.
        waiter = asyncio.shield(asyncio.wrap_future(self._reply.future))
        try:
            meta = await asyncio.wait_for(waiter, wait_seconds)
        except TimeoutError:
            raise self._reply.timed_out() from None
        return self._reply.outcome(meta)


class AsyncKeyValueStore:
    """The key-value store, through the queue, for asyncio programs.

    ``timeout`` is in seconds and bounds the whole call; None is the configured default. Sending and
    reading happen in the store's own threads, so the event loop is never blocked.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._store = KeyValueStore(settings)

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Self:
        """The store that a configuration file describes; without a path, the one KVWORKER_CONFIG names.

        Raises:
            ConfigurationError: the file is missing or wrong.
        """
        return cls(Settings.load(path))

    async def get(self, namespace: str, key: str, *, timeout: float | None = None) -> GetResult:
        """Read an entry. A miss, or an expired entry, gives ``found=False``."""
        return cast(GetResult, await self._run("kv_get", {"namespace": namespace, "key": key}, timeout))

    async def set(
        self,
        namespace: str,
        key: str,
        value: JSONValue,
        *,
        ttl_seconds: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> SetResult:
        """Write an entry. Without ``ttl_seconds`` it does not expire, whatever it did before."""
        arguments = {
            "namespace": namespace,
            "key": key,
            "value": value,
            "ttl_seconds": ttl_seconds,
            "idempotency_key": idempotency_key,
        }
        return cast(SetResult, await self._run("kv_set", arguments, timeout))

    async def delete(
        self,
        namespace: str,
        key: str,
        *,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> DeleteResult:
        """Remove an entry. A miss, or an expired entry, gives ``deleted=False``."""
        arguments = {"namespace": namespace, "key": key, "idempotency_key": idempotency_key}
        return cast(DeleteResult, await self._run("kv_delete", arguments, timeout))

    async def increment(
        self,
        namespace: str,
        key: str,
        *,
        delta: int = 1,
        initial_value: int = 0,
        ttl_seconds: float | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> IncrementResult:
        """Add ``delta`` to a counter; a missing or expired one becomes ``initial_value + delta``."""
        arguments = {
            "namespace": namespace,
            "key": key,
            "delta": delta,
            "initial_value": initial_value,
            "ttl_seconds": ttl_seconds,
            "idempotency_key": idempotency_key,
        }
        return cast(IncrementResult, await self._run("kv_increment", arguments, timeout))

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Run a tool by its name (``kv_get`` …): arguments as a dict in, the result as a dict out."""
        return (await self._run(tool, arguments, timeout)).to_dict()

    async def submit(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        timeout: float | None = None,
    ) -> AsyncPendingResult:
        """Start an operation now, to await its result later; ``timeout`` is the message's deadline."""
        return self._submit(find_tool(tool), arguments, timeout)

    def signature(self, tool: str, arguments: Mapping[str, Any]) -> Signature:
        """A Celery signature, as ``KeyValueStore.signature`` makes it."""
        return self._store.signature(tool, arguments)

    async def close(self) -> None:
        """Stop the threads and close the connections of this process."""
        await asyncio.to_thread(self._store.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def _run(self, tool_name: str, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        self._store.dispatcher().check_not_nested()
        result: OperationResult = await self._submit(find_tool(tool_name), arguments, timeout).result()
        return result

    def _submit(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> AsyncPendingResult:
        checked = check_arguments(tool, arguments)
        dispatcher = self._store.dispatcher()
        seconds = check_timeout(timeout, self.settings.facade.timeout_seconds)
        return AsyncPendingResult(dispatcher.dispatch(tool, checked, seconds), dispatcher)
