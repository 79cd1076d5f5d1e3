"""What client and worker share: task names, the payload of a message, the dict of a result.

A payload is the tool's own arguments plus ``v`` (the version of the payload) and, from the facade,
``deadline`` (seconds since the epoch); where policies are configured also ``persona``, where a signing key
is also ``signature``, where certificates are also ``task``. A message made by hand needs the arguments alone::

    app.send_task("kvworker.kv_set", kwargs={"namespace": "session", "key": "token", "value": "t"}, queue="kv")
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from kombu.utils.json import register_type

from kvworker.errors import InvalidRequestError, OperationFailedError, UnsupportedMessageError
from kvworker.model import MAX_NAMESPACE_BYTES, OperationResult, decode_value, shown_name
from kvworker.tools import TOOLS, Tool, check_arguments

PAYLOAD_VERSION: Final = 1
SWEEP_TASK: Final = "kvworker.sweep_expired"
RECOMPUTE_TASK: Final = "kvworker.recompute_ledgers"
PRUNE_TASK: Final = "kvworker.prune_operations"
#: What several callers of a process asked for, in one message.
APPLY_MANY_TASK: Final = "kvworker.apply_many"
SIGNATURE: Final = "signature"
#: Where a message's body names its task, which is otherwise in its headers alone.
TASK: Final = "task"

#: What holds values as they were given: arguments of operations and fields of results.
_MAY_HOLD_VALUES: Final = frozenset({"value", "operations", "entries", "results"})


#: What the result of a repetition tells otherwise.
_OF_THE_MOMENT: Final = frozenset({"replayed", "ttl_seconds"})
#: What a payload holds besides the tool's arguments.
_ENVELOPE: Final = frozenset({"v", "deadline", "persona", SIGNATURE, TASK})


@dataclass(frozen=True, slots=True)
class Request:
    """One operation as the worker understands it; ``deadline`` is in seconds since the epoch.

    ``persona`` is "" for a call without one.
    """

    tool: Tool
    arguments: Mapping[str, Any]
    operation_id: str
    deadline: float | None = None
    persona: str = ""


class Literal:
    """A value that kombu's JSON would otherwise mistake for one of its own tagged types.

    kombu decodes ``{"__type__": ..., "__value__": ...}`` into dates, bytes and so on (kombu.utils.json),
    which would change a stored value of that shape, or reject the message. Such a value travels as text
    and arrives as itself wherever this module is imported.
    """

    def __init__(self, text: str) -> None:
        self.text = text


register_type(Literal, "kvworker.literal", lambda literal: literal.text, decode_value)


def encode_request(arguments: Mapping[str, Any], *, deadline: float | None, persona: str = "") -> dict[str, Any]:
    """The payload of a message from checked arguments, not signed yet."""
    payload: dict[str, Any] = {**arguments, "v": PAYLOAD_VERSION}
    if deadline is not None:
        payload["deadline"] = deadline
    if persona:
        payload["persona"] = persona
    return with_literals(payload)


def decode_request(tool: Tool, parents: tuple[Any, ...], payload: Mapping[str, Any], *, task_id: str) -> Request:
    """The operation that a message asks for.

    ``parents`` is what Celery passes on from the previous task of a chain: the value to set, if the
    message names none; of an operation's result, what it is however often the chain is run. The operation id
    is the caller's, or else the task's id.

    Raises:
        UnsupportedMessageError: the message is of a newer version.
        InvalidRequestError: it is not what the tool takes.
    """
    version = payload.get("v", PAYLOAD_VERSION)
    if version != PAYLOAD_VERSION:
        raise UnsupportedMessageError(
            f"the message is of version {_shown_version(version)}, this worker understands {PAYLOAD_VERSION};"
            " upgrade the worker"
        )
    arguments = {name: value for name, value in payload.items() if name not in _ENVELOPE}
    if parents:
        if tool.name != "kv_set" or "value" in arguments or len(parents) > 1:
            raise InvalidRequestError(f"{tool.name} takes keyword arguments only (make its signature immutable)")
        arguments["value"] = _as_recorded(parents[0])
    checked = check_arguments(tool, arguments)
    operation_id = checked.pop("idempotency_key", task_id)
    persona = check_persona(payload.get("persona")) or ""
    return Request(tool, checked, operation_id, _check_deadline(payload.get("deadline")), persona)


def encode_many(calls: Mapping[str, tuple[Tool, dict[str, Any]]]) -> dict[str, Any]:
    """The payload of one message from those of several, by their task ids."""
    return {
        "v": PAYLOAD_VERSION,
        "calls": {task_id: {"tool": tool.name, "payload": payload} for task_id, (tool, payload) in calls.items()},
    }


def decode_many(payload: Mapping[str, Any]) -> dict[str, tuple[Tool, dict[str, Any]]]:
    """The payloads of several messages, by their task ids; what this worker does not understand is left out."""
    calls = payload.get("calls")
    if payload.get("v") != PAYLOAD_VERSION or not isinstance(calls, dict):
        return {}
    return {task_id: (TOOLS[call["tool"]], call["payload"]) for task_id, call in calls.items() if _is_call(call)}


def _is_call(call: object) -> bool:
    return (
        isinstance(call, dict)
        and isinstance(call.get("tool"), str)
        and call["tool"] in TOOLS
        and isinstance(call.get("payload"), dict)
    )


def encode_result(result: OperationResult) -> dict[str, Any]:
    """The dict that a task returns."""
    return with_literals(result.to_dict())


def decode_result(tool: Tool, data: object, operation_id: str) -> OperationResult:
    """The result from the dict that a task returned.

    Raises:
        OperationFailedError: it is not such a dict.
    """
    if not isinstance(data, dict):
        raise OperationFailedError(operation_id, f"a {type(data).__name__} is not a result")
    try:
        return tool.result.from_dict(data)
    except (TypeError, KeyError, ValueError) as error:
        raise OperationFailedError(operation_id, f"the result is not understood: {error}") from error


def described(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """The arguments for logs and monitors: the value, which may be a secret, is left out."""
    shown = ", ".join(f"{k}={v!r}" for k, v in arguments.items() if k in {"namespace", "key"})
    return f"{tool.name}({shown})"


def check_persona(persona: object) -> str | None:
    """The name of a persona as it is given, or None for none.

    Raises:
        InvalidRequestError: it is not a non-blank string of at most 255 characters.
    """
    if persona is None:
        return None
    if not isinstance(persona, str) or not persona.strip() or len(persona) > MAX_NAMESPACE_BYTES:
        raise InvalidRequestError(f"persona must be a non-blank string of at most {MAX_NAMESPACE_BYTES} characters")
    return persona


def with_literals(data: dict[str, Any]) -> dict[str, Any]:
    """What is sent: values that kombu would mistake are made literal; done twice it changes nothing."""
    return {name: _literal(value) if name in _MAY_HOLD_VALUES else value for name, value in data.items()}


def _as_recorded(result: object) -> object:
    """An operation's result without what a repetition tells otherwise: that it is one, and the time that is left.

    A chord passes on a list of results.
    """
    if isinstance(result, list):
        return [_as_recorded(one) for one in result]
    if isinstance(result, dict) and "replayed" in result and "namespace" in result:
        kept = {name: value for name, value in result.items() if name not in _OF_THE_MOMENT}
        return {**kept, "results": [_as_recorded(one) for one in kept["results"]]} if "results" in kept else kept
    return result


def _literal(value: object) -> object:
    if isinstance(value, dict | list):
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if '"__type__"' in text:
            return Literal(text)
    return value


def _shown_version(version: object) -> str:
    return str(version) if isinstance(version, int) and abs(version) < 10**9 else shown_name(version)


def _check_deadline(deadline: object) -> float | None:
    if deadline is None:
        return None
    # Compared first: math.isfinite and float() raise for an integer that is larger than any float.
    if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not abs(deadline) <= sys.float_info.max:
        raise InvalidRequestError("deadline must be a number of seconds since the epoch")
    return float(deadline)
