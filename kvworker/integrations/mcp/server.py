"""The MCP server without its transport: lists the tools and calls them on a store."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
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
  kv_increment.
- kv_batch runs many operations on one namespace at once, either all or none of them.
- MCP carries values of up to {_MAX_VALUE_DEPTH} nested lists and objects.
- An error result says in JSON whether anything was changed and what to do next.
"""


class ToolStore(Protocol):
    """The part of ``AsyncKeyValueStore`` that the server uses."""

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and return its result."""


class ToolHandlers:
    """Handles ``tools/list`` and ``tools/call``.

    A session never uses a request's id again, up to protocol version 2025-11-25. So a write that arrives twice with the
    same id is the same call, and is applied once. Later versions allow ids to be used again.

    Args:
        store: The store on which tools are called.
        tools: All tools, by name.
        offered: The names of the tools to list. Other tools can still be called, so that the store denies the call and
            logs the denial.
        scope_of: Returns the scope of a request's client.
    """

    def __init__(
        self, store: ToolStore, tools: Mapping[str, Tool], offered: Sequence[str], scope_of: Callable[[Context], Scope]
    ) -> None:
        self._store = store
        self._tools = tools
        self._scope_of = scope_of
        # Over stdio a process serves one session, which has no id.
        self._process = secrets.token_hex(16)
        self._offered = [
            types.Tool.model_validate(definition) for definition in mcp_tools(tools[name] for name in offered)
        ]

    async def list_tools(
        self, _context: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """List the offered tools on one page."""
        return types.ListToolsResult(tools=self._offered)

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Call a tool.

        Returns:
            The tool's result, structured and as text, or an error result that tells the model what to do.

        Raises:
            MCPError: The tool is unknown. MCP requires a protocol error for that.
        """
        tool = self._tools.get(params.name)
        if tool is None:
            known = ", ".join(tool.name for tool in self._offered)
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name!r}; the tools are: {known}")
        scope = self._scope_of(context)
        try:
            given = _check_depth(arguments_from_strict(tool.name, params.arguments or {}))
            arguments = self._with_request_id(tool, scope.inward(tool, given), context)
            result = await self._store.call_tool(tool, arguments, None)
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
        return self._process if context.request is None else _session_id(context)


def server_in_scope(store: ToolStore, offered: Sequence[str], scope: Scope) -> Server[dict[str, Any]]:
    """Make a server whose clients all share one scope."""
    return _make_server(store, offered, scope, lambda _context: scope)


def server_by_session(store: ToolStore, offered: Sequence[str]) -> Server[dict[str, Any]]:
    """Make an HTTP server that gives every session its own namespaces.

    Protocol version 2026-07-28 has no sessions. The server refuses it with the error that makes clients fall back to
    the previous version, which has them.
    """
    server = _make_server(store, offered, Scope.of_process(), _session_scope)
    server.middleware.append(_refuse_without_sessions)
    return server


def _make_server(
    store: ToolStore, offered: Sequence[str], example: Scope, scope_of: Callable[[Context], Scope]
) -> Server[dict[str, Any]]:
    tools = {name: example.tool(tool) for name, tool in TOOLS.items()}
    schemas = {name: plain_schema(tool) for name, tool in tools.items()}
    handlers = ToolHandlers(store, tools, offered, scope_of)
    return Server(
        "kvworker",
        version=__version__,
        instructions=_INSTRUCTIONS,
        get_tool_input_schema=schemas.get,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
    )


def _session_scope(context: Context) -> Scope:
    return Scope.of_session(_session_id(context))


def _session_id(context: Context) -> str:
    # The transport has already found the session, so the header holds an id that the transport issued.
    request: Any = context.request
    session_id: str = request.headers[_SESSION_HEADER]
    return session_id


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
