"""What client and worker share: task names, the payload of a message, the dict of a result.

A payload is the tool's own arguments plus ``v`` (the version of the payload) and, from the facade,
``deadline`` (seconds since the epoch). A message made by hand needs the arguments alone::

    app.send_task("kvworker.kv_set", kwargs={"namespace": "session", "key": "token", "value": "t"}, queue="kv")
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from kombu.utils.json import register_type

from kvworker.errors import InvalidRequestError, OperationFailedError, UnsupportedMessageError
from kvworker.model import (
    DeleteResult,
    GetResult,
    IncrementResult,
    OperationResult,
    SetResult,
    check_integer,
    check_key,
    check_namespace,
    check_operation_id,
    check_ttl,
    decode_value,
    encode_value,
)

PAYLOAD_VERSION: Final = 1
TASK_PREFIX: Final = "kvworker."
SWEEP_TASK: Final = "kvworker.sweep_expired"
RECOMPUTE_TASK: Final = "kvworker.recompute_ledgers"
PRUNE_TASK: Final = "kvworker.prune_operations"


@dataclass(frozen=True, slots=True)
class Tool:
    """One of the four operations: what it takes and what it gives."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    result: type[OperationResult]

    @property
    def task_name(self) -> str:
        """The name of the Celery task."""
        return TASK_PREFIX + self.name

    @property
    def writes(self) -> bool:
        """Whether it takes an operation id."""
        return "idempotency_key" in self.optional


TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        Tool("kv_get", ("namespace", "key"), (), GetResult),
        Tool("kv_set", ("namespace", "key", "value"), ("ttl_seconds", "idempotency_key"), SetResult),
        Tool("kv_delete", ("namespace", "key"), ("idempotency_key",), DeleteResult),
        Tool(
            "kv_increment",
            ("namespace", "key"),
            ("delta", "initial_value", "ttl_seconds", "idempotency_key"),
            IncrementResult,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Request:
    """One operation as the worker understands it; ``deadline`` is in seconds since the epoch."""

    tool: Tool
    arguments: Mapping[str, Any]
    operation_id: str
    deadline: float | None


class Literal:
    """A value that kombu's JSON would otherwise mistake for one of its own tagged types.

    kombu decodes ``{"__type__": ..., "__value__": ...}`` into dates, bytes and so on (kombu.utils.json),
    which would change a stored value of that shape, or reject the message. Such a value travels as text
    and arrives as itself wherever this module is imported.
    """

    def __init__(self, text: str) -> None:
        self.text = text


register_type(Literal, "kvworker.literal", lambda literal: literal.text, decode_value)


def find_tool(name: str) -> Tool:
    """The operation of that name.

    Raises:
        InvalidRequestError: there is none.
    """
    try:
        return TOOLS[name]
    except (KeyError, TypeError):
        raise InvalidRequestError(f"unknown tool {name!r}; the tools are {', '.join(TOOLS)}") from None


def check_arguments(
    tool: Tool, arguments: Mapping[str, Any], *, missing_allowed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The arguments of a call, checked. An optional one that is null counts as left out.

    Raises:
        InvalidRequestError: an argument is missing, unknown or wrong.
    """
    if not isinstance(arguments, Mapping):
        raise InvalidRequestError(f"the arguments of {tool.name} must be an object, not a {type(arguments).__name__}")
    allowed = tool.required + tool.optional
    if unknown := [str(name) for name in arguments if name not in allowed]:
        raise InvalidRequestError(f"{tool.name} takes no argument {unknown[0]!r}; it takes {', '.join(allowed)}")
    given = {k: v for k, v in arguments.items() if not (v is None and k in tool.optional)}
    for name in tool.required:
        if name not in given and name not in missing_allowed:
            raise InvalidRequestError(f"{tool.name} needs the argument {name!r}")
    return {name: _CHECKS[name](value) for name, value in given.items()}


def encode_request(arguments: Mapping[str, Any], *, deadline: float | None) -> dict[str, Any]:
    """The payload of a message from checked arguments."""
    payload: dict[str, Any] = {**arguments, "v": PAYLOAD_VERSION}
    if deadline is not None:
        payload["deadline"] = deadline
    return _with_literal(payload)


def decode_request(tool: Tool, parents: tuple[Any, ...], payload: Mapping[str, Any], *, task_id: str) -> Request:
    """The operation that a message asks for.

    ``parents`` is what Celery passes on from the previous task of a chain: the value to set, if the
    message names none. The operation id is the caller's, or else the task's id.

    Raises:
        UnsupportedMessageError: the message is of a newer version.
        InvalidRequestError: it is not what the tool takes.
    """
    version = payload.get("v", PAYLOAD_VERSION)
    if version != PAYLOAD_VERSION:
        raise UnsupportedMessageError(
            f"the message is of version {version!r}, this worker understands {PAYLOAD_VERSION}; upgrade the worker"
        )
    arguments = {name: value for name, value in payload.items() if name not in {"v", "deadline"}}
    if parents:
        if tool.name != "kv_set" or "value" in arguments or len(parents) > 1:
            raise InvalidRequestError(f"{tool.name} takes keyword arguments only (make its signature immutable)")
        arguments["value"] = parents[0]
    checked = check_arguments(tool, arguments)
    operation_id = checked.pop("idempotency_key", task_id)
    return Request(tool, checked, operation_id, _check_deadline(payload.get("deadline")))


def encode_result(result: OperationResult) -> dict[str, Any]:
    """The dict that a task returns."""
    return _with_literal(result.to_dict())


def decode_result(tool: Tool, data: object, operation_id: str) -> OperationResult:
    """The result from the dict that a task returned.

    Raises:
        OperationFailedError: it is not such a dict.
    """
    if not isinstance(data, dict):
        raise OperationFailedError(operation_id, f"a {type(data).__name__} is not a result")
    try:
        # A newer worker may say more than this client knows.
        return tool.result(**{f.name: data[f.name] for f in fields(tool.result) if f.name in data})
    except TypeError as error:
        raise OperationFailedError(operation_id, f"the result is not understood: {error}") from error


def described(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """The arguments for logs and monitors: the value, which may be a secret, is left out."""
    shown = ", ".join(f"{k}={v!r}" for k, v in arguments.items() if k in {"namespace", "key"})
    return f"{tool.name}({shown})"


def _with_literal(data: dict[str, Any]) -> dict[str, Any]:
    value = data.get("value")
    if isinstance(value, dict | list):
        text = encode_value(value)
        if '"__type__"' in text:
            return {**data, "value": Literal(text)}
    return data


def _check_deadline(deadline: object) -> float | None:
    if deadline is None:
        return None
    # Compared first: math.isfinite and float() raise for an integer that is larger than any float.
    if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not abs(deadline) <= sys.float_info.max:
        raise InvalidRequestError("deadline must be a number of seconds since the epoch")
    return float(deadline)


def _check_value(value: object) -> object:
    encode_value(value)
    return value


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "namespace": check_namespace,
    "key": check_key,
    "value": _check_value,
    "ttl_seconds": check_ttl,
    "delta": lambda value: check_integer("delta", value),
    "initial_value": lambda value: check_integer("initial_value", value),
    "idempotency_key": check_operation_id,
}
