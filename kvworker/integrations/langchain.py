"""Gives a LangChain agent kvworker's tools, so that the model can read and write the store.

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
from kvworker.errors import ConfigurationError, KVStoreError, NestedCallError, SchemaError
from kvworker.integrations.rounds import run_blocking
from kvworker.tools import Tool, find_tool
from kvworker.tools.advice import describe
from kvworker.tools.manifest import input_schema, tools_of

try:
    from langchain_core.tools import BaseTool, ToolException
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "kvworker.integrations.langchain needs langchain-core: pip install 'kvworker[langchain]'", name=missing.name
    ) from missing

_Store: TypeAlias = KeyValueOperations | AsyncKeyValueStore

#: Errors that a model cannot fix. They are raised for the program's operator to see.
_OPERATOR_ERRORS: Final = (ConfigurationError, SchemaError, NestedCallError)


class KvworkerTool(BaseTool):
    """One of kvworker's tools on a store. It accepts the tool's arguments and returns its result as a dict.

    An error goes back to the model as JSON, in a message of status "error": the error's type and message, whether
    anything was changed, and what to do next. With ``handle_tool_error = False``, the tool raises a ``ToolException``
    instead, caused by the error. Errors that only an operator can fix are always raised unchanged:
    ``ConfigurationError``, ``SchemaError`` and ``NestedCallError``.

    An asynchronous call over a synchronous store runs in a thread. A synchronous call over an ``AsyncKeyValueStore``
    raises ``asyncio.InvalidStateError`` if an event loop is running in its thread.
    """

    _tool: Tool = PrivateAttr()
    _store: _Store = PrivateAttr()

    def __init__(self, tool: Tool, store: _Store) -> None:
        super().__init__(
            name=tool.name, description=tool.summary, args_schema=input_schema(tool), handle_tool_error=True
        )
        self._tool = tool
        self._store = store

    def _run(self, /, **arguments: Any) -> dict[str, Any]:
        if isinstance(self._store, AsyncKeyValueStore):
            return run_blocking(self._arun(**arguments), f"await {self.name}.ainvoke(...)")
        try:
            return self._store.call(self.name, arguments)
        except KVStoreError as error:
            raise self._to_raise(error) from error

    async def _arun(self, /, **arguments: Any) -> dict[str, Any]:
        if not isinstance(self._store, AsyncKeyValueStore):
            return await asyncio.to_thread(self._run, **arguments)
        try:
            return await self._store.call(self.name, arguments)
        except KVStoreError as error:
            raise self._to_raise(error) from error

    def _to_raise(self, error: KVStoreError) -> Exception:
        if isinstance(error, _OPERATOR_ERRORS):
            return error
        return ToolException(json.dumps(describe(error, self._tool), ensure_ascii=False))


def langchain_tools(store: _Store, *, names: Iterable[str] | None = None) -> list[BaseTool]:
    """Make LangChain tools that call a store.

    Args:
        store: The store to call.
        names: The names of the tools; by default, all that the store's persona may use.

    Raises:
        InvalidRequestError: A name is not the name of a tool.
    """
    tools = tools_of(store.settings, store.persona) if names is None else map(find_tool, names)
    return [KvworkerTool(tool, store) for tool in tools]
