"""Gives a LangChain agent kvworker's tools, so that the model can read and write the store.

``once_tool`` wraps a tool of yours, so that its effect happens once for each tool call.

Needs the extra ``langchain``::

    from kvworker import KeyValueStore
    from kvworker.integrations.langchain import langchain_tools

    store = KeyValueStore.from_config("config/kvworker.yaml")
    model = model.bind_tools(langchain_tools(store, names=["kv_get", "kv_set"]))
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

from pydantic import PrivateAttr

from kvworker.client.aio import AsyncKeyValueStore
from kvworker.client.base import KeyValueOperations
from kvworker.errors import ConfigurationError, KVStoreError, NestedCallError, SchemaError, extra_needed
from kvworker.integrations.rounds import run_blocking
from kvworker.tools import Tool, find_tool, with_call_id
from kvworker.tools.advice import describe
from kvworker.tools.manifest import arguments_from_strict, plain_schema, tools_of

try:
    from langchain_core.runnables import RunnableConfig
    from langchain_core.tools import BaseTool, ToolException

    from kvworker.integrations.once_tools import once_tool
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        extra_needed("kvworker.integrations.langchain", "langchain"), name=missing.name
    ) from missing

__all__ = ["KvworkerTool", "langchain_tools", "once_tool"]

_Store: TypeAlias = KeyValueOperations | AsyncKeyValueStore

#: Errors that a model cannot fix. They are raised for the program's operator to see.
_OPERATOR_ERRORS: Final = (ConfigurationError, SchemaError, NestedCallError)


class KvworkerTool(BaseTool):
    """One of kvworker's tools on a store. It accepts the tool's arguments and returns its result as a dict.

    A model passes a value to store as JSON text, in ``value_json``. Your own code may also pass it as ``value``.

    An error goes back to the model as JSON, in a message of status "error": the error's type and message, whether
    anything was changed, and what to do next. With ``handle_tool_error = False``, the tool raises a ``ToolException``
    instead, caused by the error. Errors that only an operator can fix are always raised unchanged:
    ``ConfigurationError``, ``SchemaError`` and ``NestedCallError``.

    A ``ToolCall`` has an id, which becomes the idempotency key of a write unless the model gave one: the same call is
    applied once, however often it is invoked within a day. If the config has a ``thread_id``, ids of different threads
    are different.

    An asynchronous call over a synchronous store runs in a thread. A synchronous call over an ``AsyncKeyValueStore``
    raises ``asyncio.InvalidStateError`` if an event loop is running in its thread.
    """

    _tool: Tool = PrivateAttr()
    _store: _Store = PrivateAttr()
    _once_per_id: bool = PrivateAttr()

    def __init__(self, tool: Tool, store: _Store, *, once_per_id: bool = True) -> None:
        super().__init__(
            name=tool.name, description=tool.summary, args_schema=plain_schema(tool), handle_tool_error=True
        )
        self._tool = tool
        self._store = store
        self._once_per_id = once_per_id

    def run(
        self,
        tool_input: str | dict[str, Any],
        *args: Any,
        config: RunnableConfig | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the tool, as ``BaseTool.run`` does. ``invoke`` passes the id of a ``ToolCall``."""
        given = self._with_call_id(tool_input, tool_call_id, config)
        return super().run(given, *args, config=config, tool_call_id=tool_call_id, **kwargs)

    async def arun(
        self,
        tool_input: str | dict[str, Any],
        *args: Any,
        config: RunnableConfig | None = None,
        tool_call_id: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the tool, as ``BaseTool.arun`` does. ``ainvoke`` passes the id of a ``ToolCall``."""
        given = self._with_call_id(tool_input, tool_call_id, config)
        return await super().arun(given, *args, config=config, tool_call_id=tool_call_id, **kwargs)

    def _with_call_id(
        self, tool_input: str | dict[str, Any], tool_call_id: str | None, config: RunnableConfig | None
    ) -> str | dict[str, Any]:
        if not self._once_per_id or isinstance(tool_input, str):
            return tool_input
        thread_id = ((config or {}).get("configurable") or {}).get("thread_id")
        return with_call_id(self._tool, tool_input, tool_call_id, scope=None if thread_id is None else str(thread_id))

    def _run(self, /, **arguments: Any) -> dict[str, Any]:
        if isinstance(self._store, AsyncKeyValueStore):
            return run_blocking(self._arun(**arguments), f"await {self.name}.ainvoke(...)")
        try:
            return self._store.call(self.name, arguments_from_strict(self.name, arguments))
        except KVStoreError as error:
            raise self._to_raise(error) from error

    async def _arun(self, /, **arguments: Any) -> dict[str, Any]:
        if not isinstance(self._store, AsyncKeyValueStore):
            return await asyncio.to_thread(self._run, **arguments)
        try:
            return await self._store.call(self.name, arguments_from_strict(self.name, arguments))
        except KVStoreError as error:
            raise self._to_raise(error) from error

    def _to_raise(self, error: KVStoreError) -> Exception:
        if isinstance(error, _OPERATOR_ERRORS):
            return error
        return ToolException(json.dumps(describe(error, self._tool), ensure_ascii=False))


def langchain_tools(store: _Store, *, names: Iterable[str] | None = None, once_per_id: bool = True) -> list[BaseTool]:
    """Make LangChain tools that call a store.

    Args:
        store: The store to call.
        names: The names of the tools; by default, all that the store's persona may use.
        once_per_id: Apply a tool call once for its id. Use False for a model that numbers its calls from the start in
            each turn; it must then give an ``idempotency_key`` itself.

    Raises:
        InvalidRequestError: A name is not the name of a tool.
    """
    tools = tools_of(store.settings, store.persona) if names is None else map(find_tool, names)
    return [KvworkerTool(tool, store, once_per_id=once_per_id) for tool in tools]
