"""JSON Schemas (Draft 2020-12) of a tool's arguments and its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kvworker.tools import STEP_TOOLS, Parameter, ResultField, Tool, step_parameters

#: The error of a refused operation, in the result of a batch that is not atomic.
_STEP_ERROR = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "The name of the error's class."},
        "args": {"type": "array", "description": "The arguments of the error's class."},
        "message": {"type": "string", "description": "The error in words."},
    },
    "required": ["type", "args", "message"],
}


def input_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of a tool's arguments.

    Every call that ``check_arguments`` accepts is valid. Not every valid call is accepted: the schema cannot express
    lengths in bytes or arguments that contradict each other.
    """
    return _arguments_schema(tool.parameters)


def output_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of a tool's result. It allows other properties, which a newer worker may add."""
    return _result_schema(tool.result_fields)


def tool_name_schema(tool: Tool) -> dict[str, Any]:
    """Return the schema of the ``tool`` property of an operation in a batch."""
    return {"type": "string", "enum": [tool.name]}


def nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an optional argument, where null has the same meaning as leaving it out."""
    return {**schema, "type": [schema["type"], "null"]}


def _arguments_schema(parameters: Sequence[Parameter], **first: dict[str, Any]) -> dict[str, Any]:
    required = [*first, *(parameter.name for parameter in parameters if parameter.required)]
    return {
        "type": "object",
        "properties": {**first, **{parameter.name: _argument_schema(parameter) for parameter in parameters}},
        "required": required,
        "additionalProperties": False,
    }


def _argument_schema(parameter: Parameter) -> dict[str, Any]:
    schema = dict(parameter.schema) if parameter.required else nullable(parameter.schema)
    if parameter.name == "operations":
        schema["items"] = {
            "anyOf": [_arguments_schema(step_parameters(tool), tool=tool_name_schema(tool)) for tool in STEP_TOOLS]
        }
    return {**schema, "description": parameter.description}


def _result_schema(fields: Iterable[ResultField], **first: dict[str, Any]) -> dict[str, Any]:
    fields = tuple(fields)
    return {
        "type": "object",
        "properties": {**first, **{field.name: _field_schema(field) for field in fields}},
        "required": [*first, *(field.name for field in fields if field.always)],
    }


def _field_schema(field: ResultField) -> dict[str, Any]:
    schema = dict(field.schema)
    if field.name == "results":
        schema["items"] = {
            "anyOf": [
                *(_result_schema(tool.result_fields, tool=tool_name_schema(tool)) for tool in STEP_TOOLS),
                _refused_operation(),
            ]
        }
    return {**schema, "description": field.description}


def _refused_operation() -> dict[str, Any]:
    tool = {"type": "string", "enum": [tool.name for tool in STEP_TOOLS]}
    return {"type": "object", "properties": {"tool": tool, "error": _STEP_ERROR}, "required": ["tool", "error"]}
