"""The MCP server without its transport: lists the tools and calls them on a store."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import mcp_types as types
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from kvworker.__version__ import __version__
from kvworker.errors import KVStoreError, ValueSerializationError
from kvworker.integrations.mcp.http_guard import unsupported_version
from kvworker.integrations.mcp.scope import Scope
from kvworker.model import OperationResult, depth_of
from kvworker.tools import TOOLS, Tool, with_call_id
from kvworker.tools.advice import describe
from kvworker.tools.manifest import arguments_from_strict, mcp_tools, plain_schema

Context = ServerRequestContext[dict[str, Any], Any]

_SESSION_HEADER: Final = "mcp-session-id"

#: Levels of lists and objects in arguments and results. The SDK's parser fails near 200 levels. A client cannot read a
#: deeper message, and over stdio it waits for the answer forever.
_MAX_DEPTH: Final = 128
#: Results of a batch or a listing wrap a value in three levels.
_MAX_VALUE_DEPTH: Final = _MAX_DEPTH - 3

_INSTRUCTIONS: Final = f"""\
A key-value store for data that must outlive this turn. An entry is a JSON value under a namespace and a key.
- Use one namespace for each purpose; kv_list_namespaces lists them. Give temporary entries an expiry (ttl_seconds).
- Give a write that may run twice an idempotency_key, such as "<run>/<step>". It is then applied once.
- To change an entry that others may also change, read it and pass its version as expected_version. To count, use
  kv_increment; to collect items in a list, kv_append; to change members of an object, kv_merge.
- kv_batch runs many operations on one namespace at once, either all or none of them.
- MCP carries values of up to {_MAX_VALUE_DEPTH} nested lists and objects.
- An error result says in JSON whether anything was changed and what to do next.
"""


class ToolStore(Protocol):
    """The part of ``AsyncKeyValueStore`` that the server uses."""

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and return its result."""


@dataclass(frozen=True)
class Caller:
    """The sender of a request: its view of the store, its namespaces and its tools.

    Attributes:
        store: The store on which its tools are called, with its persona.
        scope: Its namespaces.
        offered: The names of the tools to list. Other tools can still be called, so that the store denies the call and
            logs the denial.
    """

    store: ToolStore
    scope: Scope
    offered: tuple[str, ...]

    @cached_property
    def listed(self) -> list[types.Tool]:
        """The definitions of the offered tools."""
        tools = (self.scope.tool(TOOLS[name]) for name in self.offered)
        return [types.Tool.model_validate(definition) for definition in mcp_tools(tools)]


class ToolHandlers:
    """Handles ``tools/list`` and ``tools/call``.

    A session never uses a request's id again, up to protocol version 2025-11-25. So a write that arrives twice with the
    same id is the same call, and is applied once. Later versions allow ids to be used again.

    Args:
        caller_of: Returns the sender of a request.
    """

    def __init__(self, caller_of: Callable[[Context], Caller]) -> None:
        self._caller_of = caller_of
        # Over stdio a process serves one session, which has no id.
        self._process = secrets.token_hex(16)

    async def list_tools(self, context: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        """List the offered tools on one page."""
        return types.ListToolsResult(tools=self._caller_of(context).listed)

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Call a tool.

        Returns:
            The tool's result, structured and as text, or an error result that tells the model what to do.

        Raises:
            MCPError: The tool is unknown. MCP requires a protocol error for that.
        """
        caller = self._caller_of(context)
        if params.name not in TOOLS:
            known = ", ".join(caller.offered)
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name!r}; the tools are: {known}")
        scope = caller.scope
        tool = scope.tool(TOOLS[params.name])
        try:
            given = _check_depth(arguments_from_strict(tool.name, params.arguments or {}))
            arguments = self._with_request_id(tool, scope.inward(tool, given), context)
            result = await caller.store.call_tool(tool, arguments, None)
        except KVStoreError as error:
            return _failure(describe(scope.error(error), tool))
        data = scope.outward(result).to_dict()
        if _is_too_deep(data):
            return _failure(_too_deep_result(tool))
        return types.CallToolResult(content=[types.TextContent(text=_json(data))], structured_content=data)

    def _with_request_id(self, tool: Tool, arguments: Mapping[str, Any], context: Context) -> dict[str, Any]:
        session = self._session_of(context)
        if session is None:
            return dict(arguments)
        # JSON tells the id 1 from "1". The hash keeps a session's id, which is a credential, out of records and logs.
        request = json.dumps([session, context.request_id])
        return with_call_id(tool, arguments, hashlib.sha256(request.encode()).hexdigest())

    def _session_of(self, context: Context) -> str | None:
        """Return the session within which a request's id is unique, or None if ids may be used again."""
        if context.protocol_version not in HANDSHAKE_PROTOCOL_VERSIONS:
            return None
        return self._process if context.request is None else session_id(context)


def make_server(caller_of: Callable[[Context], Caller], *, needs_sessions: bool = False) -> Server[dict[str, Any]]:
    """Make a server.

    Args:
        caller_of: Returns the sender of a request.
        needs_sessions: Every session has its own namespaces. Protocol version 2026-07-28 has no sessions. The server
            then refuses it with the error that makes clients fall back to the previous version, which has them.
    """
    schemas = {name: plain_schema(tool) for name, tool in TOOLS.items()}
    handlers = ToolHandlers(caller_of)
    server: Server[dict[str, Any]] = Server(
        "kvworker",
        version=__version__,
        instructions=_INSTRUCTIONS,
        get_tool_input_schema=schemas.get,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
    )
    if needs_sessions:
        server.middleware.append(_refuse_without_sessions)
    return server


def session_id(context: Context) -> str:
    """Return the id of a request's session over HTTP."""
    # The transport has already found the session, so the header holds an id that the transport issued.
    request: Any = context.request
    return str(request.headers[_SESSION_HEADER])


async def _refuse_without_sessions(ctx: Context, call_next: CallNext) -> HandlerResult:
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        raise MCPError.from_error_data(unsupported_version(ctx.protocol_version))
    return await call_next(ctx)


def _is_too_deep(data: Mapping[str, Any]) -> bool:
    return depth_of(data, _MAX_DEPTH) > _MAX_DEPTH


def _check_depth(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    # A deeper value could be stored, but not read back over MCP.
    if _is_too_deep(arguments):
        raise ValueSerializationError(
            f"the arguments are nested deeper than the {_MAX_DEPTH} levels that MCP can carry"
        )
    return arguments


def _too_deep_result(tool: Tool) -> dict[str, Any]:
    return {
        "error": {
            "type": "ResultTooDeepError",
            "message": f"{tool.name} was done, but its result is nested deeper than the {_MAX_DEPTH} levels that MCP"
            " can carry",
            "details": {"max_depth": _MAX_DEPTH},
            "changed": "nothing" if tool.side_effects == "none" else "what was asked for",
            "next": "To see the rest, leave out the key with the deeply nested value, or list without include_values."
            " Tell the user that MCP cannot carry that value.",
        }
    }


def _failure(data: Mapping[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=_json(data))], is_error=True)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)
