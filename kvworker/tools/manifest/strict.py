"""OpenAI's strict mode: its schemas, and its arguments turned back into the tool's.

The rules are those of "Structured Outputs: Supported schemas" (platform.openai.com/docs/guides/structured-outputs):
the root is an object without ``anyOf``; every object has ``additionalProperties: false`` and lists all its
properties in ``required``, so that what may be left out is a union with null instead; the first property of the
objects of an ``anyOf`` tells them apart; at most 10 levels, 5000 properties and 120 000 characters of names; no
``allOf``, ``not``, ``if`` and the like. Bounds (``minimum``, ``maxItems`` …) and lengths are refused by fine-tuned
models and by other hosts of the interface, so the descriptions tell them.

"Any JSON value" cannot be said in strict mode. Such an argument is passed as JSON text, in ``<name>_json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kvworker.errors import InvalidRequestError
from kvworker.tools import STEP_TOOLS, Parameter, Tool, find_tool, step_parameters
from kvworker.tools.manifest.schemas import step_name

_AS_TEXT: Final = "_json"
_HOW_AS_TEXT: Final = 'Given as JSON text, so that a string has quotes of its own: "text".'
_STEP_TOOLS: Final = {tool.name: tool for tool in STEP_TOOLS}


def strict_schema(tool: Tool) -> dict[str, Any]:
    """The tool's arguments in strict mode; ``arguments_from_strict`` turns back what a model makes of it."""
    return _object(tool.parameters)


def arguments_from_strict(tool_name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The tool's own arguments, from those of a strict call. The tool's check is still to come.

    Raises:
        InvalidRequestError: there is no such tool, the arguments are no object, or what should be JSON text is not.
    """
    tool = find_tool(tool_name)
    if not isinstance(arguments, Mapping):
        raise InvalidRequestError(f"the arguments of {tool.name} must be an object, not a {type(arguments).__name__}")
    plain = _plain(tool.parameters, arguments)
    if isinstance(operations := plain.get("operations"), list):
        plain["operations"] = [_plain_step(index, operation) for index, operation in enumerate(operations)]
    return plain


def _object(parameters: Sequence[Parameter], **first: dict[str, Any]) -> dict[str, Any]:
    properties = {**first, **{_strict_name(parameter): _argument(parameter) for parameter in parameters}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _argument(parameter: Parameter) -> dict[str, Any]:
    description = " ".join([parameter.description, *_told(parameter)])
    if _is_any_json(parameter):
        return {"type": "string", "description": f"{description} {_HOW_AS_TEXT}"}
    kind = parameter.schema["type"]
    schema = {"type": kind if parameter.required else [kind, "null"], "description": description}
    if parameter.name == "operations":
        schema["items"] = {"anyOf": [_object(step_parameters(tool), tool=step_name(tool)) for tool in STEP_TOOLS]}
    return schema


def _told(parameter: Parameter) -> Iterator[str]:
    """The bounds that the schema may not hold, in words, but for those that the description tells anyway."""
    schema = parameter.schema
    if "minimum" in schema:
        yield f"From {schema['minimum']} to {schema['maximum']}."
    if "exclusiveMinimum" in schema:
        yield f"Above {schema['exclusiveMinimum']}."
    if "minItems" in schema:
        yield f"{schema['minItems']} to {schema['maxItems']} of them."
    if "maxLength" in schema and str(schema["maxLength"]) not in parameter.description:
        yield f"At most {schema['maxLength']} bytes of UTF-8."
    if "default" in schema:
        yield f"null means {json.dumps(schema['default'])}."
    elif not parameter.required:
        yield "null leaves it out."


def _is_any_json(parameter: Parameter) -> bool:
    return not parameter.schema


def _strict_name(parameter: Parameter) -> str:
    return parameter.name + _AS_TEXT if _is_any_json(parameter) else parameter.name


def _plain(parameters: Sequence[Parameter], arguments: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(arguments)
    for parameter in parameters:
        name = _strict_name(parameter)
        if name not in plain:
            continue
        if name != parameter.name:
            if parameter.name in plain:
                raise InvalidRequestError(f"{name} and {parameter.name} contradict each other; give {name} alone")
            plain[parameter.name] = _parsed(name, plain.pop(name))
        elif plain[name] is None and not parameter.required:
            del plain[name]
    return plain


def _plain_step(index: int, operation: object) -> object:
    """An operation of a batch; one that is not of its form is left to the check."""
    name = operation.get("tool") if isinstance(operation, Mapping) else None
    if not isinstance(operation, Mapping) or not isinstance(name, str) or name not in _STEP_TOOLS:
        return operation
    try:
        return _plain(step_parameters(_STEP_TOOLS[name]), operation)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"operations[{index}]: {error}") from None


def _parsed(name: str, text: object) -> Any:
    if not isinstance(text, str):
        raise InvalidRequestError(f"{name} must be a string that holds JSON, not a {type(text).__name__}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise InvalidRequestError(f"{name} does not hold JSON: {reason}. {_HOW_AS_TEXT}") from None
