"""Makes the id that a model's protocol gives a call the operation id of that call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from kvworker.errors import InvalidRequestError
from kvworker.model import check_operation_id
from kvworker.tools.definition import Tool

# Ids may come from other programs, so they may hold half a surrogate pair.
_ENCODING_ERRORS: Final = "surrogatepass"


def with_call_id(
    tool: Tool, arguments: Mapping[str, Any], call_id: str | None, *, scope: str | None = None
) -> dict[str, Any]:
    """Give a write the id of its call as ``idempotency_key``, so that the same call is applied once.

    A conversation that resumes after a crash then repeats its last calls without harm.

    Args:
        tool: The tool that is called.
        arguments: The call's arguments. A key that they already have stays.
        call_id: The id, such as OpenAI's ``call_id`` or Anthropic's ``id`` of a ``tool_use`` block. None or blank if
            there is none.
        scope: Where the id is unique, such as the conversation. None if it is unique everywhere.

    Returns:
        The arguments to call the tool with.
    """
    given = dict(arguments)
    if tool.writes and call_id and not call_id.isspace() and given.get("idempotency_key") is None:
        given["idempotency_key"] = _operation_id(call_id, scope)
    return given


def _operation_id(call_id: str, scope: str | None) -> str:
    # Quoting removes "/" from the scope, so that no two pairs have the same name.
    name = call_id if scope is None else f"{quote(scope, safe='', errors=_ENCODING_ERRORS)}/{call_id}"
    try:
        return check_operation_id(name)
    except InvalidRequestError:
        return hashlib.sha256(name.encode(errors=_ENCODING_ERRORS)).hexdigest()
