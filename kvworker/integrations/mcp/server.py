"""The MCP server itself: the tools over a store, whatever the transport."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import mcp_types as types
from mcp import MCPError
from mcp.server import Server, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from kvworker.__version__ import __version__
from kvworker.errors import KVStoreError, ValueSerializationError
from kvworker.integrations.mcp.scope import Scope
from kvworker.model import OperationResult, depth_of
from kvworker.tools import TOOLS, Tool
from kvworker.tools.advice import describe
from kvworker.tools.manifest import input_schema, mcp_tools

Context = ServerRequestContext[dict[str, Any], Any]

_SESSION_HEADER: Final = "mcp-session-id"

#: Levels of lists and objects in arguments and results. The SDK's parser of messages stops near 200: a client that
#: is sent more cannot read it, and over stdio waits for the answer without end.
_MAX_DEPTH: Final = 128
#: A batch and a listing put three levels around a value.
_MAX_VALUE_DEPTH: Final = _MAX_DEPTH - 3

_INSTRUCTIONS: Final = f"""\
A key-value store for what must outlive this turn: an entry is a JSON value under a namespace and a key.
- Keep one purpose in one namespace; kv_list_namespaces tells which there are. Let what is not needed for good expire
  (ttl_seconds).
- A write that may run twice gets an idempotency_key, such as "<run>/<step>": it is then applied once.
- To change what others may change too, read it and pass its version as expected_version. Count with kv_increment.
- kv_batch does many operations of one namespace at once, all or none of them.
- MCP carries values of up to {_MAX_VALUE_DEPTH} nested lists and objects.
- A result that is an error tells in JSON whether anything was changed and what to do next.
"""


class ToolStore(Protocol):
    """What the server needs of ``AsyncKeyValueStore``."""

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and return its result."""


class ToolHandlers:
    """The handlers of ``tools/list`` and ``tools/call``. ``scope_of`` tells what the client of a request sees.

    A tool that is not offered can be called all the same, for the store to deny it and to log that.
    """

    def __init__(
        self, store: ToolStore, tools: Mapping[str, Tool], offered: Sequence[str], scope_of: Callable[[Context], Scope]
    ) -> None:
        self._store = store
        self._tools = tools
        self._scope_of = scope_of
        self._offered = [
            types.Tool.model_validate(definition) for definition in mcp_tools(tools[name] for name in offered)
        ]

    async def list_tools(
        self, _context: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """All that are offered, on one page."""
        return types.ListToolsResult(tools=self._offered)

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """The tool's result, structured and as text; or what went wrong, for the model to act on.

        Raises:
            MCPError: there is no such tool, which MCP wants as an error of the protocol.
        """
        tool = self._tools.get(params.name)
        if tool is None:
            known = ", ".join(tool.name for tool in self._offered)
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name!r}; the tools are: {known}")
        scope = self._scope_of(context)
        try:
            arguments = scope.inward(tool, _checked_depth(params.arguments or {}))
            result = await self._store.call_tool(tool, arguments, None)
        except KVStoreError as error:
            return _failure(describe(scope.error(error), tool))
        data = scope.outward(result).to_dict()
        if _is_too_deep(data):
            return _failure(_too_deep_result(tool))
        return types.CallToolResult(content=[types.TextContent(text=_json(data))], structured_content=data)


def server_in_scope(store: ToolStore, offered: Sequence[str], scope: Scope) -> Server[dict[str, Any]]:
    """A server whose clients all see the same scope."""
    return _make_server(store, offered, scope, lambda _context: scope)


def server_by_session(store: ToolStore, offered: Sequence[str]) -> Server[dict[str, Any]]:
    """A server over HTTP whose every session sees only namespaces of its own.

    Protocol version 2026-07-28 knows no sessions, so it is refused in the way that makes clients fall back
    to the version before, which does.
    """
    server = _make_server(store, offered, Scope.of_process(), _session_scope)
    server.middleware.append(_refuse_without_sessions)
    return server


def _make_server(
    store: ToolStore, offered: Sequence[str], like: Scope, scope_of: Callable[[Context], Scope]
) -> Server[dict[str, Any]]:
    tools = {name: like.tool(tool) for name, tool in TOOLS.items()}
    schemas = {name: input_schema(tool) for name, tool in tools.items()}
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
    # The transport has found the session that the header names, so it is one that it has given out itself.
    request: Any = context.request
    return Scope.of_session(request.headers[_SESSION_HEADER])


async def _refuse_without_sessions(ctx: Context, call_next: CallNext) -> HandlerResult:
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(
            types.UNSUPPORTED_PROTOCOL_VERSION,
            "this server gives every session namespaces of its own, so it needs a protocol version with sessions",
            {"supported": list(HANDSHAKE_PROTOCOL_VERSIONS), "requested": ctx.protocol_version},
        )
    return await call_next(ctx)


def _is_too_deep(data: Mapping[str, Any]) -> bool:
    return depth_of(data, _MAX_DEPTH) > _MAX_DEPTH


def _checked_depth(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    # What could be stored so could not be read again.
    if _is_too_deep(arguments):
        raise ValueSerializationError(f"the arguments are nested deeper than the {_MAX_DEPTH} levels that MCP carries")
    return arguments


def _too_deep_result(tool: Tool) -> dict[str, Any]:
    return {
        "error": {
            "type": "ResultTooDeepError",
            "message": f"{tool.name} was done, but its result is nested deeper than the {_MAX_DEPTH} levels that MCP"
            " carries",
            "details": {"max_depth": _MAX_DEPTH},
            "changed": "nothing" if tool.side_effects == "none" else "what was asked for",
            "next": "To see the rest, leave out the key whose value is nested so deep, or list without include_values."
            " Tell the user that MCP does not carry that value.",
        }
    }


def _failure(data: Mapping[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=_json(data))], is_error=True)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)
