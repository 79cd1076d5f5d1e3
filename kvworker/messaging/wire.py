"""The wire format: task names, the payload of a message, and the dict of a result.

A payload holds the tool's own arguments and ``v``, the version of the payload. The facade adds ``deadline`` (seconds
since the epoch). Policies add ``persona``, a signing key adds ``signature``, and certificates add ``task``. A message
made by hand needs only the arguments::

    app.send_task("kvworker.kv_set", kwargs={"namespace": "session", "key": "token", "value": "t"}, queue="kv")

The facade also adds the header ``kvworker``, by which a worker finds out that a message is too late without decoding
its body. ``kvworker.messaging.waiting`` describes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kombu.utils.json import register_type

from kvworker.errors import InvalidRequestError, OperationFailedError, UnsupportedMessageError
from kvworker.model import (
    MAX_NAMESPACE_BYTES,
    EncodedValue,
    GeneratedOperationId,
    OperationResult,
    decode_value,
    shown_name,
)
from kvworker.tools import TOOLS, Tool, check_arguments

PAYLOAD_VERSION: Final = 1
SWEEP_TASK: Final = "kvworker.sweep_expired"
RECOMPUTE_TASK: Final = "kvworker.recompute_ledgers"
PRUNE_TASK: Final = "kvworker.prune_operations"
#: The part of ``celery inspect stats`` that is ours; ``QuietWorker.status`` in ``kvworker.worker.celery_worker`` tells
#: what it holds.
STATS_KEY: Final = "kvworker"
#: One message that holds the coalesced calls of several callers.
APPLY_MANY_TASK: Final = "kvworker.apply_many"
#: The header that tells how long a message may wait in the queue.
WAITING: Final = "kvworker"
#: The beginning of the keys that count a message's redeliveries, on the results' server. Its id follows.
REDELIVERY_COUNTS: Final = "kvworker.redelivered."
#: The field of a coalesced message's answer that says that all its calls were too late.
LATE: Final = "late"
SIGNATURE: Final = "signature"
#: The argument that names a message's task in its body, for signatures that do not cover its headers.
TASK: Final = "task"

#: Arguments of operations and fields of results that may hold a caller's values.
_VALUE_FIELDS: Final = frozenset({"value", "operations", "entries", "results"}).union(
    parameter.name for tool in TOOLS.values() for parameter in tool.parameters if parameter.holds_values
)
#: Fields of a result that differ on replay.
_REPLAY_FIELDS: Final = frozenset({"replayed", "ttl_seconds", "retry_after_seconds", "full_after_seconds"})
#: The text of the key by which kombu recognizes a tagged type.
_TAG: Final = '"__type__"'
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
#: Fields of a payload that are not arguments of the tool.
_ENVELOPE: Final = frozenset({"v", "deadline", "persona", SIGNATURE, TASK})


@dataclass(frozen=True, slots=True)
class Request:
    """One operation as a worker executes it.

    Attributes:
        tool: The tool to run.
        arguments: The tool's arguments, checked.
        operation_id: The idempotency key: the caller's, or else the task id. If the message has a deadline, the latter
            is a ``GeneratedOperationId``, since no copy of the message is applied much later.
        deadline: When it may no longer start, in seconds since the epoch; None for no deadline.
        persona: The caller's persona, or "" for a call without one.
    """

    tool: Tool
    arguments: Mapping[str, Any]
    operation_id: str
    deadline: float | None = None
    persona: str = ""


class Literal:
    """A value that kombu's JSON decoder would otherwise mistake for a tagged type of kombu.

    kombu decodes ``{"__type__": ..., "__value__": ...}`` into dates, bytes and so on (``kombu.utils.json``), which
    would change a stored value of this shape, or reject the message. Such a value travels as JSON text, with a tag of
    ours, and is decoded wherever this module is imported.

    Args:
        text: The value as JSON.
    """

    def __init__(self, text: str) -> None:
        self.text = text


# The tag is registered for the whole process, by kombu's public extension point. It adds one tag and changes no other.
# A serializer of our own would be registered process-wide too, and would change the messages' content type. A decoder
# in our own classes would not do: a user's stock application reads our results and passes them on in chains.
register_type(Literal, "kvworker.literal", lambda literal: literal.text, decode_value)


def encode_request(arguments: Mapping[str, Any], *, deadline: float | None, persona: str = "") -> dict[str, Any]:
    """Make the payload of a message, not signed yet.

    Args:
        arguments: The tool's arguments, checked.
        deadline: When the operation may no longer start, in seconds since the epoch.
        persona: The caller's persona, or "" for none.
    """
    payload: dict[str, Any] = {**arguments, "v": PAYLOAD_VERSION}
    if deadline is not None:
        payload["deadline"] = deadline
    if persona:
        payload["persona"] = persona
    payload |= {name: _wire_value(each) for name, each in arguments.items() if isinstance(each, EncodedValue)}
    if "operations" in arguments:
        payload["operations"] = _wire_operations(arguments["operations"])
    return payload


def decode_request(tool: Tool, parents: tuple[Any, ...], payload: Mapping[str, Any], *, task_id: str) -> Request:
    """Decode the operation that a message requests.

    Args:
        tool: The tool that the message's task runs.
        parents: The results that Celery passes on from the previous task of a chain. If the message has no value,
            the result becomes the value to set, without the fields that differ on replay.
        payload: The message's keyword arguments.
        task_id: The operation id, if the caller gave none.

    Raises:
        UnsupportedMessageError: The message is of a newer version.
        InvalidRequestError: The message does not fit the tool.
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
    deadline = _check_deadline(payload.get("deadline"))
    operation_id = checked.pop("idempotency_key", task_id if deadline is None else GeneratedOperationId(task_id))
    persona = check_persona(payload.get("persona")) or ""
    return Request(tool, checked, operation_id, deadline, persona)


def encode_many(calls: Mapping[str, tuple[Tool, dict[str, Any]]]) -> dict[str, Any]:
    """Combine the payloads of several calls, by their task ids, into the payload of one message."""
    return {
        "v": PAYLOAD_VERSION,
        "calls": {task_id: {"tool": tool.name, "payload": payload} for task_id, (tool, payload) in calls.items()},
    }


def decode_many(payload: Mapping[str, Any]) -> dict[str, tuple[Tool, dict[str, Any]]]:
    """Split the payload of coalesced calls, by their task ids. Calls that this worker cannot decode are omitted."""
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
    """Return the dict that a task returns for a result."""
    return with_literals(result.to_dict())


def decode_result(tool: Tool, data: object, operation_id: str) -> OperationResult:
    """Decode the dict that a task returned.

    Args:
        tool: The tool that the task ran.
        data: The dict that the task returned.
        operation_id: The operation id, for the error.

    Raises:
        OperationFailedError: The data is not a result of this tool.
    """
    if not isinstance(data, dict):
        raise OperationFailedError(operation_id, f"a {type(data).__name__} is not a result")
    try:
        return tool.result.from_dict(data)
    except Exception as error:
        raise OperationFailedError(operation_id, f"the result is not understood ({type(error).__name__})") from error


def described(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """Describe a call for logs and monitors, without the value, which may be a secret."""
    shown = ", ".join(f"{k}={v!r}" for k, v in arguments.items() if k in {"namespace", "key"})
    return f"{tool.name}({shown})"


def check_persona(persona: object) -> str | None:
    """Check the name of a persona and return it; None stands for no persona.

    Raises:
        InvalidRequestError: The name is not a non-blank string of at most 255 characters.
    """
    if persona is None:
        return None
    if not isinstance(persona, str) or not persona.strip() or len(persona) > MAX_NAMESPACE_BYTES:
        raise InvalidRequestError(f"persona must be a non-blank string of at most {MAX_NAMESPACE_BYTES} characters")
    return persona


def with_literals(data: dict[str, Any]) -> dict[str, Any]:
    """Replace the values that kombu would misread by ``Literal``. Applying it twice changes nothing more."""
    return {name: _literal(value) if name in _VALUE_FIELDS else value for name, value in data.items()}


def _as_recorded(result: object) -> object:
    """Return the part of an operation's result that is stable across replays. A chord passes on a list of results."""
    if isinstance(result, list):
        return [_as_recorded(element) for element in result]
    if isinstance(result, dict) and "replayed" in result and "namespace" in result:
        kept = {name: value for name, value in result.items() if name not in _REPLAY_FIELDS}
        return (
            {**kept, "results": [_as_recorded(element) for element in kept["results"]]} if "results" in kept else kept
        )
    return result


def _literal(value: object) -> object:
    if isinstance(value, dict | list):
        text = _ENCODER.encode(value)
        if _TAG in text:
            return Literal(text)
    return value


def _wire_value(encoded: EncodedValue) -> object:
    if _TAG in encoded.text and isinstance(encoded.value, dict | list):
        return Literal(encoded.text)
    return encoded.value


def _wire_operations(operations: Sequence[Mapping[str, Any]]) -> object:
    plain: list[Mapping[str, Any]] = []
    has_tag = False
    for operation in operations:
        encoded = [(name, value) for name, value in operation.items() if isinstance(value, EncodedValue)]
        has_tag = has_tag or operation["key"] == "__type__" or any(_TAG in value.text for _, value in encoded)
        plain.append({**operation, **{name: value.value for name, value in encoded}} if encoded else operation)
    return Literal(_ENCODER.encode(plain)) if has_tag else plain


def _shown_version(version: object) -> str:
    return str(version) if isinstance(version, int) and abs(version) < 10**9 else shown_name(version)


def _check_deadline(deadline: object) -> float | None:
    if deadline is None:
        return None
    # Compare first: math.isfinite and float() raise for an integer that is larger than any float.
    if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not abs(deadline) <= sys.float_info.max:
        raise InvalidRequestError("deadline must be a number of seconds since the epoch")
    return float(deadline)
