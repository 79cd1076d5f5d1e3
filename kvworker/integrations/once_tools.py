"""Wraps a tool of LangChain's so that its effect happens at most once for each tool call.

``kvworker.integrations.langchain`` offers it. It needs the extra ``langchain``.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias, Unpack, cast
from urllib.parse import quote

from langchain_core.messages import ToolMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool
from pydantic import BaseModel, PrivateAttr

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.base import KeyValueOperations
from kvworker.client.durable_methods import StepChoices
from kvworker.durable import AsyncDurableStep, DurableStep, StepOptions, StepRequest
from kvworker.errors import InvalidRequestError
from kvworker.integrations.rounds import run_blocking
from kvworker.model import MAX_KEY_BYTES, OperationResult
from kvworker.tools import Tool

_Store: TypeAlias = KeyValueOperations | AsyncKeyValueStore

#: The record is an object with this name. Any other value comes from an operator.
_MESSAGE: Final = "tool_message"
_FIELDS: Final = ("content", "status", "artifact")


class OnceTool(BaseTool):
    """A tool that answers a repeated tool call with the recorded message; ``once_tool`` makes it."""

    _inner: BaseTool = PrivateAttr()
    _store: _Store = PrivateAttr()
    _options: StepOptions = PrivateAttr()

    def __init__(self, store: _Store, inner: BaseTool, options: StepOptions) -> None:
        same = {name: getattr(inner, name) for name in ("name", "description", "return_direct", "tags", "metadata")}
        super().__init__(args_schema=inner.args_schema or inner.get_input_schema(), **same)
        self._inner = inner
        self._store = store
        self._options = options

    @property
    def func(self) -> Callable[..., Any] | None:
        """The wrapped tool's function, whose annotations tell LangGraph what to inject."""
        return getattr(self._inner, "func", None)

    @property
    def coroutine(self) -> Callable[..., Any] | None:
        """The wrapped tool's coroutine function."""
        return getattr(self._inner, "coroutine", None)

    def run(
        self,
        tool_input: str | dict[str, Any],
        *args: Any,
        config: RunnableConfig | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the wrapped tool, unless the call has an answer already."""
        given = {"config": config, "tool_call_id": tool_call_id, **kwargs}
        if isinstance(self._store, AsyncKeyValueStore):
            return run_blocking(self.arun(tool_input, *args, **given), f"await {self.name}.ainvoke(...)")
        with DurableStep(self._store, self._request(tool_input, config, tool_call_id)) as step:
            if not step.needed:
                return self._message(step.result, tool_call_id)
            output = self._inner.run(tool_input, *args, **given)
            step.finish(_recorded(output))
            return output

    async def arun(
        self,
        tool_input: str | dict[str, Any],
        *args: Any,
        config: RunnableConfig | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Do what ``run`` does for a coroutine."""
        given = {"config": config, "tool_call_id": tool_call_id, **kwargs}
        request = self._request(tool_input, config, tool_call_id)
        async with AsyncDurableStep(_asynchronous(self._store), request) as step:
            if not step.needed:
                return self._message(step.result, tool_call_id)
            output = await self._inner.arun(tool_input, *args, **given)
            await step.finish(_recorded(output))
            return output

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("run calls the wrapped tool")

    def _request(
        self, tool_input: str | dict[str, Any], config: RunnableConfig | None, tool_call_id: str | None
    ) -> StepRequest:
        if not tool_call_id:
            raise InvalidRequestError(
                f"the tool {self.name} is called once for each tool call, so invoke it with a ToolCall that has an id"
            )
        thread_id = ((config or {}).get("configurable") or {}).get("thread_id")
        # LangGraph ends a run by such an exception, and runs the tool again when it is resumed.
        errors = sys.modules.get("langgraph.errors")
        interrupts = () if errors is None else (errors.GraphBubbleUp,)
        options = replace(self._options, release=(*self._options.released, *interrupts))
        arguments = [self.name, self._model_arguments(tool_input)]
        return StepRequest(options, _key(thread_id, tool_call_id), cast(Any, arguments), label=self.name)

    def _model_arguments(self, tool_input: str | dict[str, Any]) -> Any:
        """Return the arguments that the model gave. Injected ones may differ in a repetition."""
        if isinstance(tool_input, str):
            return tool_input
        schema = self._inner.tool_call_schema
        if not isinstance(schema, dict):
            schema = schema.model_json_schema() if issubclass(schema, BaseModel) else schema.schema()
        names = schema.get("properties", {})
        return {name: value for name, value in tool_input.items() if name in names}

    def _message(self, value: Any, tool_call_id: str | None) -> ToolMessage:
        """Make the message of a recorded answer, or of a result that an operator recorded."""
        if isinstance(value, dict) and isinstance(found := value.get(_MESSAGE), dict):
            answer = {name: found[name] for name in _FIELDS if name in found}
        else:
            answer = {"content": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}
        return ToolMessage(**answer, tool_call_id=tool_call_id, name=self.name)


class _InThreads:
    """A synchronous store for coroutines: each call runs in a thread."""

    def __init__(self, store: KeyValueOperations) -> None:
        self._store = store

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        return await asyncio.to_thread(self._store.call_tool, tool, arguments, timeout)


def _asynchronous(store: _Store) -> AsyncKeyValueStore:
    return store if isinstance(store, AsyncKeyValueStore) else cast(AsyncKeyValueStore, _InThreads(store))


def _recorded(output: Any) -> Any:
    """Return a tool's output as its record. Only a message can be recorded: a command, say, is refused as not JSON."""
    if not isinstance(output, ToolMessage):
        return output
    fields = {name: getattr(output, name) for name in _FIELDS}
    return {_MESSAGE: {name: field for name, field in fields.items() if field is not None}}


def _key(thread_id: object, tool_call_id: str) -> str:
    # Quoting removes "/" from the thread, so that no two pairs have the same key.
    key = tool_call_id if thread_id is None else f"{quote(str(thread_id), safe='')}/{tool_call_id}"
    if len(key.encode()) <= MAX_KEY_BYTES:
        return key
    return hashlib.sha256(key.encode()).hexdigest()


def once_tool(
    store: _Store, tool: BaseTool, *, namespace: str = "tool-calls", **options: Unpack[StepChoices]
) -> BaseTool:
    """Wrap a tool whose effect must not happen again when a graph is resumed or a call is retried.

    A call with the same ``tool_call_id`` gets the recorded message. If the config has a ``thread_id``, the same id in
    another thread is another call.

    Args:
        store: Keeps the records.
        tool: The tool. Its answer must be JSON, its artifact too.
        namespace: The namespace of the records.
        options: Those of ``store.once``.

    Raises:
        InvalidRequestError: An option is wrong. A call also raises it if it has no id.
    """
    return OnceTool(store, tool, StepOptions(namespace, **cast(Any, options)))
