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

from kvworker.errors import KVStoreError
from kvworker.manifest import input_schema, kvworker_version, mcp_tools
from kvworker.mcp_server.advice import describe
from kvworker.mcp_server.scope import Scope
from kvworker.model import OperationResult
from kvworker.tools import Tool

Context = ServerRequestContext[dict[str, Any], Any]

_SESSION_HEADER: Final = "mcp-session-id"

_INSTRUCTIONS: Final = """\
A key-value store for what must outlive this turn: an entry is a JSON value under a namespace and a key.
- Keep one purpose in one namespace, and let entries that are not needed for good expire (ttl_seconds).
- A write that may run twice gets an idempotency_key, such as "<run>/<step>": it is then applied once.
- To change what others may change too, read it and pass its version as expected_version. Count with kv_increment.
- kv_batch does many operations of one namespace at once, all or none of them.
- A result that is an error tells in JSON whether anything was changed and what to do next.
"""
_OWN_NAMESPACES: Final = "Namespaces here are your own: nobody else's show, and nobody else sees them.\n"


class ToolStore(Protocol):
    """What the server needs of ``AsyncKeyValueStore``."""

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any], timeout: float | None) -> OperationResult:
        """Run one operation and return its result."""


class ToolHandlers:
    """The handlers of ``tools/list`` and ``tools/call``. ``scope_of`` tells what the client of a request sees."""

    def __init__(self, store: ToolStore, tools: Sequence[Tool], scope_of: Callable[[Context], Scope]) -> None:
        self._store = store
        self._tools = {tool.name: tool for tool in tools}
        self._scope_of = scope_of
        self._listed = [types.Tool.model_validate(definition) for definition in mcp_tools(tools)]

    async def list_tools(
        self, _context: Context, _params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """All of them, on one page."""
        return types.ListToolsResult(tools=self._listed)

    async def call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """The tool's result, structured and as text; or what went wrong, for the model to act on.

        Raises:
            MCPError: there is no such tool (which MCP wants as an error of the protocol).
        """
        tool = self._tools.get(params.name)
        if tool is None:
            known = ", ".join(self._tools) or "none"
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name!r}; the tools are: {known}")
        scope = self._scope_of(context)
        try:
            result = await self._store.call_tool(tool, scope.inward(tool, params.arguments or {}), None)
        except KVStoreError as error:
            text = _json(describe(scope.error(error), tool))
            return types.CallToolResult(content=[types.TextContent(text=text)], is_error=True)
        data = scope.outward(result).to_dict()
        return types.CallToolResult(content=[types.TextContent(text=_json(data))], structured_content=data)


def server_in_scope(store: ToolStore, tools: Sequence[Tool], scope: Scope) -> Server[dict[str, Any]]:
    """A server whose clients all see the same scope."""
    return _make_server(store, [scope.tool(tool) for tool in tools], lambda _context: scope, bool(scope.prefix))


def server_by_session(store: ToolStore, tools: Sequence[Tool]) -> Server[dict[str, Any]]:
    """A server over HTTP whose every session sees only namespaces of its own.

    Protocol version 2026-07-28 knows no sessions, so it is refused in the way that makes clients fall back
    to the version before, which does.
    """
    any_session = Scope.of_process()
    server = _make_server(store, [any_session.tool(tool) for tool in tools], _session_scope, True)
    server.middleware.append(_refuse_without_sessions)
    return server


def _make_server(
    store: ToolStore, tools: Sequence[Tool], scope_of: Callable[[Context], Scope], own_namespaces: bool
) -> Server[dict[str, Any]]:
    handlers = ToolHandlers(store, tools, scope_of)
    schemas = {tool.name: input_schema(tool) for tool in tools}
    return Server(
        "kvworker",
        version=kvworker_version(),
        instructions=_INSTRUCTIONS + (_OWN_NAMESPACES if own_namespaces else ""),
        get_tool_input_schema=schemas.get,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
    )


def _session_scope(context: Context) -> Scope:
    # The transport has routed the request to the session that the header names, so it is one that it has given out.
    return Scope.of_session(context.request.headers[_SESSION_HEADER])


async def _refuse_without_sessions(context: Context, call_next: CallNext) -> HandlerResult:
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        raise MCPError(
            types.UNSUPPORTED_PROTOCOL_VERSION,
            "this server gives every session namespaces of its own, so it needs a protocol version with sessions",
            {"supported": list(HANDSHAKE_PROTOCOL_VERSIONS), "requested": context.protocol_version},
        )
    return await call_next(context)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)
