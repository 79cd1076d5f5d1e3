"""OpenAI's strict mode: its schemas, and the conversion of its arguments back to the tool's own.

The rules come from "Structured Outputs: Supported schemas" (platform.openai.com/docs/guides/structured-outputs):

- The root is an object without ``anyOf``.
- Every object has ``additionalProperties: false`` and lists all its properties in ``required``. An optional property
  is therefore a union with null.
- The first property of the objects of an ``anyOf`` tells them apart.
- A schema has at most 10 levels, 5000 properties and 120 000 characters of names.
- ``allOf``, ``not``, ``if`` and the like are not supported.

Fine-tuned models and other hosts of the interface refuse bounds (``minimum``, ``maxItems`` …) and lengths, so the
descriptions state them in words.

Strict mode cannot express "any JSON value". Such an argument is passed as JSON text, in ``<name>_json``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kvworker.errors import InvalidRequestError
from kvworker.tools import STEP_TOOLS, Parameter, Tool, find_tool, step_parameters
from kvworker.tools.manifest.schemas import tool_name_schema

_AS_TEXT: Final = "_json"
_HOW_AS_TEXT: Final = 'Pass it as JSON text, with quotes around a string: "text".'
_STEP_TOOLS: Final = {tool.name: tool for tool in STEP_TOOLS}


def strict_schema(tool: Tool) -> dict[str, Any]:
    """Return the strict schema of a tool's arguments. Convert a call's arguments with ``arguments_from_strict``."""
    return _object_schema(tool.parameters)


def arguments_from_strict(tool_name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the arguments of a strict call to the tool's own. It does not check them.

    Raises:
        InvalidRequestError: The tool is unknown, the arguments are not an object, or a text is not JSON.
    """
    tool = find_tool(tool_name)
    if not isinstance(arguments, Mapping):
        raise InvalidRequestError(f"the arguments of {tool.name} must be an object, not a {type(arguments).__name__}")
    plain = _from_strict(tool.parameters, arguments)
    if isinstance(operations := plain.get("operations"), list):
        plain["operations"] = [_from_strict_step(index, operation) for index, operation in enumerate(operations)]
    return plain


def _object_schema(parameters: Sequence[Parameter], **first: dict[str, Any]) -> dict[str, Any]:
    properties = {**first, **{_strict_name(parameter): _argument_schema(parameter) for parameter in parameters}}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _argument_schema(parameter: Parameter) -> dict[str, Any]:
    description = " ".join([parameter.description, *_bounds_in_words(parameter)])
    if _is_any_json(parameter):
        return {"type": "string", "description": f"{description} {_HOW_AS_TEXT}"}
    kind = parameter.schema["type"]
    schema = {"type": kind if parameter.required else [kind, "null"], "description": description}
    if parameter.name == "operations":
        schema["items"] = {
            "anyOf": [_object_schema(step_parameters(tool), tool=tool_name_schema(tool)) for tool in STEP_TOOLS]
        }
    return schema


def _bounds_in_words(parameter: Parameter) -> Iterator[str]:
    """Yield the bounds that a strict schema may not hold, except those that the description already states."""
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


def _from_strict(parameters: Sequence[Parameter], arguments: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(arguments)
    for parameter in parameters:
        name = _strict_name(parameter)
        if name not in plain:
            continue
        if name != parameter.name:
            if parameter.name in plain:
                raise InvalidRequestError(f"{name} and {parameter.name} contradict each other; give only {name}")
            plain[parameter.name] = _parse_json(name, plain.pop(name))
        elif plain[name] is None and not parameter.required:
            del plain[name]
    return plain


def _from_strict_step(index: int, operation: object) -> object:
    """Convert an operation of a batch. Leave a malformed one to the check."""
    name = operation.get("tool") if isinstance(operation, Mapping) else None
    if not isinstance(operation, Mapping) or not isinstance(name, str) or name not in _STEP_TOOLS:
        return operation
    try:
        return _from_strict(step_parameters(_STEP_TOOLS[name]), operation)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"operations[{index}]: {error}") from None


def _parse_json(name: str, text: object) -> Any:
    if not isinstance(text, str):
        raise InvalidRequestError(f"{name} must be a string that holds JSON, not a {type(text).__name__}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise InvalidRequestError(f"{name} does not hold JSON: {reason}. {_HOW_AS_TEXT}") from None
