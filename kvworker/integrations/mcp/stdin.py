"""The messages on standard input. Any other line is answered, so that its sender does not wait for an answer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeAlias

import anyio
import mcp_types as types
from mcp.shared.message import SessionMessage
from pydantic import ValidationError

#: Sends a message to the client.
Send: TypeAlias = Callable[[SessionMessage], Awaitable[None]]

_BYTE_ORDER_MARK: Final = "\ufeff"
_BETWEEN_VALUES: Final = re.compile(r"[\s:,]*")
_NO_MESSAGE: Final = (
    'Invalid request: a message is an object with "jsonrpc": "2.0", and a request has a method and an id that is a'
    " string or an integer"
)


class MessageLines:
    """The lines of standard input that are messages. Blank lines are left out, and all others are refused.

    It takes the place of the SDK's reader, which drops a line that is not a message, and replaces wrong bytes in
    others.
    """

    def __init__(self, lines: anyio.AsyncFile[bytes]) -> None:
        self._lines = lines
        self._send: asyncio.Future[Send] = asyncio.get_running_loop().create_future()

    def refuse_through(self, send: Send) -> None:
        """Set the function that sends refusals. Until then, the first line to refuse waits."""
        self._send.set_result(send)

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self._lines:
            refusal = refusal_of(line)
            if refusal is None:
                if line.strip():
                    yield line.decode()
                continue
            send = await self._send
            await send(SessionMessage(refusal))


def refusal_of(line: bytes) -> types.JSONRPCError | None:
    """Return the answer to a line that is not a message, with the id if it can be read. None for other lines."""
    if not line.strip():
        return None
    try:
        message = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            return _refusal(line, types.PARSE_ERROR, f"Parse error: {first['ctx']['error']}")
        return _refusal(line, types.INVALID_REQUEST, _NO_MESSAGE)
    # The SDK takes a request whose id has a wrong type for a notification, which has no answer.
    if isinstance(message, types.JSONRPCNotification) and "id" in _readable_members(line):
        return _refusal(line, types.INVALID_REQUEST, _NO_MESSAGE)
    return None


def _refusal(line: bytes, code: int, message: str) -> types.JSONRPCError:
    error = types.ErrorData(code=code, message=message)
    return types.JSONRPCError(jsonrpc="2.0", id=readable_id(line), error=error)


def readable_id(line: bytes) -> str | int | None:
    """Return the id of a request that may be malformed, or None if it cannot be read."""
    members = _readable_members(line)
    found = members.get("id")
    # The id of a response is one of this server's own. In an answer, it would stand for a request of the client.
    if isinstance(found, bool) or not isinstance(found, int | str) or {"result", "error"} & members.keys():
        return None
    return None if isinstance(found, str) and not _is_text(found) else found


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _readable_members(line: bytes) -> dict[str, Any]:
    """Return the members of the object before the first place that is not JSON."""
    text = line.decode(errors="surrogateescape").removeprefix(_BYTE_ORDER_MARK).lstrip()
    members: dict[str, Any] = {}
    if not text.startswith("{"):
        return members
    position = 1
    try:
        while True:
            name, position = _next_value(text, position)
            value, position = _next_value(text, position)
            members[str(name)] = value
    except (ValueError, RecursionError):
        return members


def _next_value(text: str, position: int) -> tuple[Any, int]:
    gap = _BETWEEN_VALUES.match(text, position)
    return json.JSONDecoder().raw_decode(text, gap.end() if gap else position)
